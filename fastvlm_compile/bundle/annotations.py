"""What became known of a bundle after it was built, written into it: in a report and in the card.

Everything else stays the bytes that were built. The folder is made anew beside the old one, of hard
links to the files that stay, and takes its name in one step (`publish.py`).
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fastvlm_compile.bundle.card import CARD_NAME, model_card
from fastvlm_compile.bundle.copying import Screen, write_file
from fastvlm_compile.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from fastvlm_compile.bundle.publish import published
from fastvlm_compile.bundle.quality import has_real_tower, quality_of
from fastvlm_compile.bundle.times import LATENCY_FILE, Times, times_of
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.durable import Disk
from fastvlm_compile.tree_digest import FileRecord
from reference.errors import UserError
from validation.consumers.outcome import Outcome, not_run
from validation.consumers.registry import CONSUMERS

CONSUMERS_FILE = "reports/consumers.json"
NOT_YET = "run `fastvlm-compile consumers`"

_WRITTEN_HERE = frozenset({CARD_NAME, MANIFEST_NAME, CONSUMERS_FILE, LATENCY_FILE})


def no_outcomes() -> tuple[Outcome, ...]:
    """The matrix of a bundle that no consumer has seen: every one of them, not run."""
    return tuple(outcome for each in CONSUMERS for outcome in not_run(each.name, [""], NOT_YET))


def digest_of_rest(manifest: Manifest) -> str:
    """Digest of all files but those that become known later."""
    lines = (f"{f.path}\n{f.sha256}\n" for f in manifest.files if f.path not in _WRITTEN_HERE)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def annotate(
    bundle: Path,
    reports: Mapping[str, bytes],
    *,
    consumers: Sequence[Outcome],
    private_paths: Iterable[Path],
    disk: Disk | None = None,
) -> Manifest:
    """Writes reports into a bundle. Killed at any moment, there is the old bundle or the new one.

    Args:
        bundle: a whole bundle.
        reports: path in the bundle -> content, of those that become known later; others of them
            stay as they are.
        consumers: the whole matrix, for manifest and card.
        private_paths: folders of this machine that no report may name.
        disk: what writes; tests give their own.

    Returns:
        The new manifest.

    Raises:
        BundleError: it is damaged, or a report names a folder of this machine.
        OutputError: it cannot be written.
    """
    assert reports.keys() <= _WRITTEN_HERE, "what was built stays as it is"
    manifest = read_manifest(bundle)
    screen = Screen.for_paths(private_paths)
    made = {CARD_NAME, MANIFEST_NAME, *reports}
    kept = tuple(file for file in manifest.files if file.path not in made)
    with published(bundle, marker=MANIFEST_NAME, disk=disk or Disk()) as folder:
        for file in kept:
            _link(bundle / file.path, folder / file.path)
        written = [write_file(content, folder, path, screen) for path, content in reports.items()]
        new = replace(manifest, files=_sorted((*kept, *written)), consumers=tuple(consumers))
        card = write_file(_card(new, folder, times_of(folder)), folder, CARD_NAME, screen)
        new = replace(new, files=_sorted((*new.files, card)))
        write_file(new.to_bytes(), folder, MANIFEST_NAME, screen)
        for name in made:
            (folder / name).chmod(0o644)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)
    return new


def manifest_as_built(bundle: Path) -> str:
    """sha256 of the manifest that the build wrote, whatever became known of the bundle since.

    Returns:
        Empty unless it is a bundle and whole.
    """
    try:
        if not verify_bundle(bundle).ok:
            return ""
        return hashlib.sha256(_as_built(bundle, read_manifest(bundle)).to_bytes()).hexdigest()
    except UserError:
        return ""


def _as_built(bundle: Path, manifest: Manifest) -> Manifest:
    kept = tuple(file for file in manifest.files if file.path not in _WRITTEN_HERE)
    fresh = replace(manifest, files=kept, consumers=no_outcomes())
    content = _card(fresh, bundle, None)
    card = FileRecord(
        path=CARD_NAME,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return replace(fresh, files=_sorted((*kept, card)))


def _card(manifest: Manifest, folder: Path, times: Times | None) -> bytes:
    quality = quality_of(folder)
    card = model_card(manifest, quality, times=times, real_tower=has_real_tower(folder))
    return card.encode()


def _sorted(files: Iterable[FileRecord]) -> tuple[FileRecord, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
