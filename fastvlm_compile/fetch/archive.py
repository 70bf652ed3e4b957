"""What is in a zip archive, refused as a whole if any entry is not a plain file or folder inside.

Nothing is written here. The rules hold for every entry before the first one is extracted, so that
a hostile archive leaves nothing behind. Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 and 4.4.
"""

import itertools
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fastvlm_compile.errors import FetchError

_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits: encrypted, strongly encrypted, encrypted directory."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)
"""What the upper half of the attributes may name; 0 where the writer does not know."""
_LONGEST_NAME = 1_000
_LONGEST_PART = 255
_RATIO_SLACK_BYTES = 2**20
"""Small files of one repeated byte are harmless, however well they compress."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Bounds on what an archive may become."""

    max_bytes: int
    """Of all files together."""
    max_entries: int = 2_000
    max_ratio: float = 50.0
    """Bytes out of one byte in; weights give less than 2, a tokenizer about 5."""


@dataclass(frozen=True, kw_only=True)
class ArchiveFile:
    """One file to be extracted."""

    path: PurePosixPath
    """Below the checkpoint's folder: the archive's own top folder is left out."""
    info: zipfile.ZipInfo


def plan_extraction(archive: zipfile.ZipFile, limits: ArchiveLimits) -> tuple[ArchiveFile, ...]:
    """The files to extract.

    A single top folder is taken off. What macOS adds to archives (`__MACOSX`, `.DS_Store`) is
    checked as all else is, and left out.

    Raises:
        FetchError: an entry is unsafe or a bound is passed; names the archive and the entry.
    """
    entries = archive.infolist()
    source = str(archive.filename)
    if len(entries) > limits.max_entries:
        raise FetchError(f"{source}: {len(entries)} entries, {limits.max_entries} are the most")
    for entry in entries:
        wrong = _wrong_with(entry, limits)
        if wrong:
            raise FetchError(f"{source}: entry {entry.orig_filename!r} {wrong}")
    total_bytes = sum(entry.file_size for entry in entries)
    if total_bytes > limits.max_bytes:
        raise FetchError(
            f"{source}: unpacks to {total_bytes} bytes, the most is {limits.max_bytes}"
        )
    _check_names(source, entries)
    _check_places(source, entries)
    paths = {PurePosixPath(e.filename): e for e in entries if not e.is_dir()}
    kept = {path: entry for path, entry in paths.items() if not _is_litter(path)}
    tops = {path.parts[0] for path in kept}
    if len(tops) == 1 and all(len(path.parts) > 1 for path in kept):
        kept = {PurePosixPath(*path.parts[1:]): entry for path, entry in kept.items()}
    return tuple(ArchiveFile(path=path, info=entry) for path, entry in sorted(kept.items()))


def _wrong_with(entry: zipfile.ZipInfo, limits: ArchiveLimits) -> str:
    """Why an entry is refused; empty for a good one."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    allowed_bytes = limits.max_ratio * entry.compress_size + _RATIO_SLACK_BYTES
    method = entry.compress_type
    rules = (
        (bool(entry.flag_bits & _ENCRYPTED), "is encrypted"),
        (method not in _METHODS, f"is packed with method {method}, not stored or deflated"),
        (kind == stat.S_IFLNK, "is a symbolic link"),
        (kind not in _KINDS, "is no file and no folder"),
        (kind != 0 and entry.is_dir() != (kind == stat.S_IFDIR), "is both a file and a folder"),
        (entry.is_dir() and entry.file_size > 0, "is a folder with content"),
        (
            entry.file_size > allowed_bytes,
            f"unpacks to {entry.file_size} bytes from {entry.compress_size}",
        ),
    )
    broken = (reason for wrong, reason in rules if wrong)
    return _wrong_with_name(entry.orig_filename) or next(broken, "")


def _wrong_with_name(name: str) -> str:
    if name.startswith("/") or "\\" in name or ":" in name:
        return "has an absolute path, or one of another system"
    if any(unicodedata.category(character).startswith("C") for character in name):
        return "has control characters in its name"
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the archive, or is not plain"
    if len(name.encode()) > _LONGEST_NAME or any(len(p.encode()) > _LONGEST_PART for p in parts):
        return "has too long a name"
    return ""


def _check_names(source: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """No two entries may meet on a disk that ignores case, and no file may be another's folder."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        for folder in _folders(path, also_itself=entry.is_dir()):
            folders.setdefault(_folded(folder), str(folder))
        if entry.is_dir():
            continue
        before = files.setdefault(_folded(path), entry.filename)
        if before is not entry.filename:
            raise FetchError(f"{source}: entries {before!r} and {entry.filename!r} are one name")
    for folded in files.keys() & folders.keys():
        raise FetchError(f"{source}: entry {files[folded]!r} is both a file and a folder")


def _folders(path: PurePosixPath, *, also_itself: bool) -> Iterator[PurePosixPath]:
    if also_itself:
        yield path
    yield from list(path.parents)[:-1]


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _check_places(source: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Entries that share packed bytes make a small archive as large as they like."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    if ordered and ordered[0].header_offset < 0:
        raise FetchError(f"{source}: entry {ordered[0].filename!r} lies before the archive")
    for one, other in itertools.pairwise(ordered):
        if one.header_offset + one.compress_size >= other.header_offset:
            raise FetchError(f"{source}: entries {one.filename!r} and {other.filename!r} overlap")


def _is_litter(path: PurePosixPath) -> bool:
    return path.parts[0] == "__MACOSX" or path.name == ".DS_Store"
