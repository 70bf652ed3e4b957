"""Built parts -> a published bundle.

How to call it: make a `BundlePlan` and call `assemble(plan, out_dir)`. `root_files.root_files(...)`
makes the files that consumers want at the root; `README.md` and `manifest.json` are made here.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fastvlm_compile.bundle.annotations import no_outcomes
from fastvlm_compile.bundle.card import CARD_NAME, model_card
from fastvlm_compile.bundle.copying import Screen, copy_file, write_file
from fastvlm_compile.bundle.manifest import (
    MANIFEST_NAME,
    InputContract,
    Manifest,
    Provenance,
    Variant,
)
from fastvlm_compile.bundle.publish import published
from fastvlm_compile.bundle.quality import has_real_tower, quality_of
from fastvlm_compile.durable import Disk, no_space
from fastvlm_compile.errors import BundleError, OutputError
from fastvlm_compile.tree_digest import FileRecord
from validation.gates import GateRow


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something built, and where it goes."""

    path: str
    """In the bundle, with `/`: `onnx/vision_encoder.onnx`, `coreml/fastvithd.mlpackage`."""
    source: Path
    """A file, or a folder that is copied with all it holds."""


@dataclass(frozen=True, kw_only=True)
class VariantPlan:
    """One runnable form of the model. Its size and its bits per weight are measured."""

    target: str
    variant: str
    files: tuple[str, ...]
    """Paths of parts, or of files or folders inside them; none if it was judged but not shipped."""
    num_weights: int
    """Weights of the model that the files hold, each counted once."""
    gates: tuple[GateRow, ...]
    quantization: str = ""
    """Which of the plan's quantizations the files encode; empty for none."""


@dataclass(frozen=True, kw_only=True)
class BundlePlan:
    """All that goes into a bundle."""

    name: str
    parts: tuple[Part, ...]
    root_files: Mapping[str, bytes]
    """Name, or path in a folder of the bundle -> content."""
    contract: InputContract
    variants: tuple[VariantPlan, ...]
    provenance: Provenance
    private_paths: tuple[Path, ...]
    """Folders of this machine that no file may name: working folder, home, store, checkpoint."""
    quantizations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name -> tensor -> how it is stored and what chose its codes."""


def assemble(plan: BundlePlan, out_dir: Path, *, disk: Disk | None = None) -> Path:
    """Writes the bundle aside, makes it durable and gives it the name `out_dir`.

    Equal plans give equal bytes. An older bundle at `out_dir` stays whole until the new one is
    complete, and stays for good if anything fails. Killed at any moment, there is the old bundle or
    the new one; leftovers go with the next call.

    Args:
        plan: what goes in.
        out_dir: the bundle's folder, such as `dist/tiny`; its parents are made.
        disk: what writes; tests give their own.

    Returns:
        `out_dir`.

    Raises:
        OutputError: `out_dir` cannot be written, is too small, or holds something else.
        BundleError: a file names a folder of this machine.
    """
    sources = list(expand(plan.parts))
    _check_paths([*plan.root_files, *(name for name, _ in sources), CARD_NAME, MANIFEST_NAME])
    needed_bytes = sum(source.stat().st_size for _, source in sources)
    screen = Screen.for_paths((*plan.private_paths, out_dir))
    disk = disk or Disk()
    with published(out_dir, marker=MANIFEST_NAME, disk=disk) as folder:
        if needed_bytes > shutil.disk_usage(folder).free:
            raise no_space(OutputError, out_dir)
        files = []
        for name, source in sources:
            files.append(copy_file(source, folder, name, screen))
            disk.step(f"copied {name}")
        for name, content in plan.root_files.items():
            files.append(write_file(content, folder, name, screen))
            disk.step(f"wrote {name}")
        manifest = Manifest(
            name=plan.name,
            contract=plan.contract,
            variants=tuple(_measured(variant, files) for variant in plan.variants),
            provenance=plan.provenance,
            files=_sorted(files),
            quantizations=plan.quantizations,
            consumers=no_outcomes(),
        )
        card = model_card(manifest, quality_of(folder), real_tower=has_real_tower(folder))
        files.append(write_file(card.encode(), folder, CARD_NAME, screen))
        manifest = replace(manifest, files=_sorted(files))
        write_file(manifest.to_bytes(), folder, MANIFEST_NAME, screen)
        disk.step(f"wrote {MANIFEST_NAME}")
        _set_modes(folder)
    return out_dir


def expand(parts: Iterable[Part]) -> Iterator[tuple[str, Path]]:
    """Every file of every part: its path in the bundle and where it comes from.

    Parts that are folders may share a path: their files come to lie side by side.

    Raises:
        BundleError: a part is missing or an empty folder.
    """
    for part in parts:
        if part.source.is_file():
            yield part.path, part.source
            continue
        inside = sorted(path for path in part.source.rglob("*") if not path.is_dir())
        if not inside:
            raise BundleError(f"{part.path}: nothing was built at {part.source}")
        for path in inside:
            yield f"{part.path}/{path.relative_to(part.source).as_posix()}", path


def _check_paths(paths: list[str]) -> None:
    """A plan with two files of one name, or with files outside the bundle, is our mistake."""
    for name in paths:
        path = PurePosixPath(name)
        assert not path.is_absolute(), name
        assert ".." not in path.parts, name
        assert str(path) == name, name
    assert len(set(paths)) == len(paths), sorted(name for name in paths if paths.count(name) > 1)


def _sorted(files: Iterable[FileRecord]) -> tuple[FileRecord, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _measured(plan: VariantPlan, files: list[FileRecord]) -> Variant:
    size_bytes = 0
    for name in plan.files:
        inside = [file for file in files if file.path == name or file.path.startswith(f"{name}/")]
        assert inside, f"{plan.target}.{plan.variant}: no part gives {name}"
        size_bytes += sum(file.size_bytes for file in inside)
    return Variant(
        target=plan.target,
        variant=plan.variant,
        files=plan.files,
        size_bytes=size_bytes,
        bits_per_weight=round(8 * size_bytes / plan.num_weights, 3),
        gates=plan.gates,
        quantization=plan.quantization,
    )


def _set_modes(folder: Path) -> None:
    """The same permissions whatever the umask and the store's are."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
