"""Fetches a released checkpoint: download, digest, checks, unpacking, one rename.

Killed at any moment, the checkpoint's folder is what it was before or complete; beside it lies at
most the download's `.part`, from which the next fetch goes on, and what that one sweeps.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastvlm_compile.bundle.publish import check_replaceable, published
from fastvlm_compile.console import format_bytes
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import FetchError, OutputError, VerificationError
from fastvlm_compile.fetch.archive import ArchiveFile, ArchiveLimits, plan_extraction
from fastvlm_compile.fetch.download import Patience, Wanted, download
from fastvlm_compile.fetch.extract import extract, opened_archive
from fastvlm_compile.fetch.ledger import Ledger, ledger_path, read_ledger, write_ledger
from fastvlm_compile.fetch.names import Release, archive_url
from fastvlm_compile.fetch.part import Part, open_part
from fastvlm_compile.progress import Progress

_MARKER = "config.json"
_UNPACKED_RATIO = 1.5
"""What an archive of weights becomes at most, as a guess until its directory can be read."""


@dataclass(frozen=True, kw_only=True)
class FetchRequest:
    """What to fetch and where to."""

    release: Release
    base_url: str
    folder: Path
    """The checkpoint's folder afterwards."""
    replace: bool = False
    """Fetch again, and replace the checkpoint that stands there."""
    accept_changed: bool = False
    """Take an archive that is not the one of the last fetch."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How a fetch ended that did not fail."""

    folder: Path
    ending: Literal["fetched", "already there"]
    ledger: Ledger


def fetch(request: FetchRequest, progress: Progress) -> Fetched:
    """Fetch a checkpoint, or verify the one that was fetched before.

    Raises:
        FetchError: the server, or what it sent, is not as it should be.
        OutputError: the folder is taken, or the disk is too full.
        VerificationError: the checkpoint that is there is not as it was fetched.
    """
    url = archive_url(request.release, request.base_url)
    folder = request.folder.absolute()
    ledger = read_ledger(folder)
    if folder.is_dir() and any(folder.iterdir()) and not request.replace:
        checked = _verified(folder, ledger, request.release, progress)
        return Fetched(folder=request.folder, ending="already there", ledger=checked)
    _check_free(folder)
    archive = folder.with_name(f"{request.release.folder}.zip")
    with open_part(archive.with_name(f"{archive.name}.part")) as part:

        def make_room(size_bytes: int) -> None:
            _check_space(folder, size_bytes - part.have_bytes + int(size_bytes * _UNPACKED_RATIO))

        wanted = Wanted(
            url=url,
            max_bytes=request.release.max_bytes,
            make_room=make_room,
            patience=request.patience,
        )
        download(wanted, part, progress)
        sha256 = part.sha256(progress)
        if not request.accept_changed:
            _check_same(url, ledger, sha256)
        new = _unpack(request, url, part, sha256, progress)
        part.remove()
    return Fetched(folder=request.folder, ending="fetched", ledger=new)


def _unpack(request: FetchRequest, url: str, part: Part, sha256: str, progress: Progress) -> Ledger:
    """The archive becomes the folder. One that cannot is removed: it would fail again."""
    folder = request.folder.absolute()
    limits = ArchiveLimits(max_bytes=request.release.max_bytes)
    try:
        with opened_archive(part.path) as archive:
            files = plan_extraction(archive, limits)
            _check_marker(url, files)
            _check_space(folder, sum(file.info.file_size for file in files))
            with published(folder, marker=_MARKER, disk=Disk()) as out:
                digests = extract(archive, files, out, progress)
                ledger = Ledger(
                    name=request.release.name,
                    url=url,
                    archive_bytes=part.have_bytes,
                    archive_sha256=sha256,
                    files=digests,
                )
                # Before the rename: a folder without its ledger could never be verified.
                write_ledger(folder, ledger)
    except FetchError as error:
        part.remove()
        raise FetchError(
            error.message, hint="the archive was removed: the same command fetches it again"
        ) from error
    return ledger


def _check_marker(url: str, files: Sequence[ArchiveFile]) -> None:
    if not any(str(file.path) == _MARKER for file in files):
        raise FetchError(f"{url}: the archive holds no checkpoint (no {_MARKER})")


def _check_same(url: str, ledger: Ledger | None, sha256: str) -> None:
    if ledger is not None and ledger.archive_sha256 != sha256:
        raise FetchError(
            f"{url}: the archive has changed since it was fetched last\n"
            f"  then  sha256 {ledger.archive_sha256}\n"
            f"  now   sha256 {sha256}",
            hint="if that is meant to be, give --accept-changed; the download is kept for it",
        )


def _verified(folder: Path, ledger: Ledger | None, release: Release, progress: Progress) -> Ledger:
    """The ledger, if the folder still holds exactly what it lists."""
    if ledger is None:
        raise OutputError(
            f"{folder}: the folder is not empty, and there is no {ledger_path(folder).name} "
            "that shows that it was fetched",
            hint="name another folder with --to, or give --force to replace the checkpoint in it",
        )
    if ledger.name != release.name:
        raise OutputError(
            f"{folder}: holds {ledger.name}, not {release.name}", hint="name another with --to"
        )
    there = {
        str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if not path.is_dir()
    }
    wrong = [f"{name} is missing" for name in sorted(ledger.files.keys() - there)]
    wrong += [f"{name} was added" for name in sorted(there - ledger.files.keys())]
    both = sorted(there & ledger.files.keys())
    for index, name in enumerate(both):
        progress(index, len(both), f"verifying {name}")
        if _sha256(folder / name) != ledger.files[name]:
            wrong.append(f"{name} was changed")
    if wrong:
        listing = "\n".join(f"  {line}" for line in wrong)
        raise VerificationError(
            f"{folder}: not as it was fetched:\n{listing}",
            hint="--force fetches it again and replaces the folder",
        )
    return ledger


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_free(folder: Path) -> None:
    """Before the download, not after it: only a checkpoint, or nothing, may be replaced."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARKER).is_file():
        raise OutputError(
            f"{folder}: the folder holds something that is not a checkpoint (it has no {_MARKER})",
            hint="name another folder with --to, or empty this one yourself",
        )
    check_replaceable(folder, _MARKER)


def _check_space(folder: Path, needed_bytes: int) -> None:
    standing = next(parent for parent in folder.parents if parent.is_dir())
    free_bytes = shutil.disk_usage(standing).free
    if needed_bytes > free_bytes:
        raise OutputError(
            f"{folder}: {format_bytes(needed_bytes)} are needed for the archive and the "
            f"checkpoint, {format_bytes(free_bytes)} are free",
            hint="free some space, or name a folder on another disk with --to",
        )
