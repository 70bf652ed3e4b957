"""What consumers made of a bundle, written into it: a report, the manifest's matrix and the card.

Everything else stays the bytes that were built. The folder is made anew beside the old one, of hard
links to the files that stay, and takes its name in one step (`publish.py`).
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastvlm_compile.bundle.card import CARD_NAME, model_card
from fastvlm_compile.bundle.copying import Screen, write_file
from fastvlm_compile.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from fastvlm_compile.bundle.publish import published
from fastvlm_compile.bundle.quality import has_real_tower, quality_of
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import BundleError
from fastvlm_compile.tree_digest import FileRecord
from reference.errors import UserError
from validation.consumers.outcome import Outcome, not_run
from validation.consumers.registry import CONSUMERS
from validation.typed_json import read_json, render_json

CONSUMERS_FILE = "reports/consumers.json"
SCHEMA = 1
NOT_YET = "run `fastvlm-compile consumers`"

_WRITTEN_HERE = frozenset({CARD_NAME, MANIFEST_NAME, CONSUMERS_FILE})


@dataclass(frozen=True, kw_only=True)
class ConsumerReport:
    """All of `reports/consumers.json`.

    Attributes:
        bundle: digest of the files that the consumers had, see `digest_of_rest`.
        outcomes: in the registry's order.
    """

    bundle: str
    outcomes: tuple[Outcome, ...]


def no_outcomes() -> tuple[Outcome, ...]:
    """The matrix of a bundle that no consumer has seen: every one of them, not run."""
    return tuple(outcome for each in CONSUMERS for outcome in not_run(each.name, [""], NOT_YET))


def digest_of_rest(manifest: Manifest) -> str:
    """Digest of all files but those that tell of consumers."""
    lines = (f"{f.path}\n{f.sha256}\n" for f in manifest.files if f.path not in _WRITTEN_HERE)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def merged(bundle: Path, manifest: Manifest, found: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """New outcomes and, of consumers that were not run now, the earlier ones.

    Those are kept only if all other files are still the same.

    Raises:
        UserError: the earlier report is damaged.
    """
    earlier = no_outcomes()
    if (bundle / CONSUMERS_FILE).is_file():
        report = read_json(bundle / CONSUMERS_FILE, ConsumerReport, schema=SCHEMA, error=_damaged)
        if report.bundle == digest_of_rest(manifest):
            earlier = report.outcomes
    run = {outcome.consumer for outcome in found}
    rows = (*found, *(outcome for outcome in earlier if outcome.consumer not in run))
    names = [each.name for each in CONSUMERS]
    known = [outcome for outcome in rows if outcome.consumer in names]
    told = {outcome.consumer for outcome in known}
    missing = (outcome for outcome in no_outcomes() if outcome.consumer not in told)
    return tuple(sorted((*known, *missing), key=lambda row: names.index(row.consumer)))


def annotate(
    bundle: Path,
    outcomes: Sequence[Outcome],
    *,
    private_paths: Iterable[Path],
    disk: Disk | None = None,
) -> Manifest:
    """Writes outcomes into a bundle. Killed at any moment, there is the old bundle or the new one.

    Args:
        bundle: a whole bundle.
        outcomes: the whole matrix, see `merged`.
        private_paths: folders of this machine that no outcome may name.
        disk: what writes; tests give their own.

    Returns:
        The new manifest.

    Raises:
        BundleError: it is damaged, or an outcome names a folder of this machine.
        OutputError: it cannot be written.
    """
    manifest = read_manifest(bundle)
    screen = Screen.for_paths(private_paths)
    kept = tuple(file for file in manifest.files if file.path not in _WRITTEN_HERE)
    report = ConsumerReport(bundle=digest_of_rest(manifest), outcomes=tuple(outcomes))
    with published(bundle, marker=MANIFEST_NAME, disk=disk or Disk()) as folder:
        for file in kept:
            _link(bundle / file.path, folder / file.path)
        content = render_json(report, schema=SCHEMA).encode()
        files = (*kept, write_file(content, folder, CONSUMERS_FILE, screen))
        new = replace(manifest, files=_sorted(files), consumers=tuple(outcomes))
        card = write_file(_card(new, folder), folder, CARD_NAME, screen)
        new = replace(new, files=_sorted((*files, card)))
        write_file(new.to_bytes(), folder, MANIFEST_NAME, screen)
        for name in _WRITTEN_HERE:
            (folder / name).chmod(0o644)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)
    return new


def manifest_as_built(bundle: Path) -> str:
    """sha256 of the manifest that the build wrote, whatever consumers were told in it since.

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
    content = _card(fresh, bundle)
    card = FileRecord(
        path=CARD_NAME,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return replace(fresh, files=_sorted((*kept, card)))


def _card(manifest: Manifest, folder: Path) -> bytes:
    card = model_card(manifest, quality_of(folder), real_tower=has_real_tower(folder))
    return card.encode()


def _sorted(files: Iterable[FileRecord]) -> tuple[FileRecord, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _damaged(what: str) -> BundleError:
    return BundleError(what, hint="build the bundle again, or check all consumers again")
