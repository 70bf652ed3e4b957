"""Unpacks a checkpoint's archive into an empty folder, and takes the digest of each file."""

import contextlib
import errno
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fastvlm_compile.errors import FetchError
from fastvlm_compile.fetch.archive import ArchiveFile
from fastvlm_compile.progress import Progress

_BLOCK_BYTES = 4 * 2**20
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)
"""What `zipfile` raises over a damaged archive, besides what `_open` translates."""


@contextlib.contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive for reading; every way in which it can be damaged becomes one error.

    Raises:
        FetchError: it is no zip archive, is cut off, or a checksum in it is wrong.
    """
    try:
        with _open(path) as archive:
            yield archive
    except _DAMAGED as error:
        raise FetchError(f"{path}: not a whole zip archive: {error}") from error


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except ValueError as error:  # a directory that points before the file
        raise zipfile.BadZipFile(str(error)) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # the same, seen by the system
            raise zipfile.BadZipFile(str(error)) from error
        raise


def extract(
    archive: zipfile.ZipFile, files: Sequence[ArchiveFile], out: Path, progress: Progress
) -> Mapping[str, str]:
    """Write files into the empty folder `out`.

    Args:
        archive: open.
        files: from `plan_extraction`, so that their paths stay inside.
        out: exists and is empty.
        progress: told of bytes.

    Returns:
        The sha256 of each file by its path below `out`.

    Raises:
        FetchError: a file is shorter than announced.
        zipfile.BadZipFile: a checksum is wrong (see `opened_archive`).
    """
    total = sum(file.info.file_size for file in files)
    done = 0
    digests: dict[str, str] = {}
    for file in files:
        target = out / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        left = file.info.file_size
        with archive.open(file.info) as source, target.open("xb") as sink:
            # Beyond the announced length nothing is read, whatever the packed bytes hold.
            while block := source.read(min(_BLOCK_BYTES, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                sink.write(block)
                done += len(block)
                progress(done, total, f"unpacking {file.path}")
        if left:
            raise FetchError(f"{archive.filename}: {file.path} has not the announced length")
        digests[str(file.path)] = digest.hexdigest()
    return digests
