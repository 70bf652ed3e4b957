"""The pieces of a stage's work on disk, for the build that goes on after one that was killed.

    <folder>/<piece>/content/    what was made
    <folder>/<piece>/seal.json   its files with sizes and sha256, and what was told of them
    <folder>/<piece>.parts/      the pieces of a piece that is not whole yet
    <folder>/<part>.part/        the pieces of a part that has names of its own
    <folder>/.work/              the account of who keeps it by itself

A piece is made aside, synced and renamed, so one that is there is whole. It is verified before use,
and made again where it is damaged.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from fastvlm_compile.durable import Disk
from fastvlm_compile.kept_arrays import read_arrays, write_arrays
from fastvlm_compile.tree_digest import StatMemo, read_tree
from reference.kept import Arrays, Kept

WORTH_S = 1.0
"""Numbers that are computed in less are sooner computed again than kept."""

_MAKING = ".making-"
_CONTENT = "content"
_SEAL = "seal.json"
_WORK = ".work"
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


@dataclass(frozen=True, kw_only=True)
class KeptWork:
    """A `reference.kept.Kept` whose pieces are in a folder; one process uses it at a time."""

    folder: Path
    worth_s: float = WORTH_S

    def arrays(self, name: str, compute: Callable[[Kept], Arrays]) -> Arrays:
        """See `Kept.arrays`; kept if it took long enough."""
        parts = self.folder / f"{_file_name(name)}.parts"
        found = self._whole(name)
        if found is not None:
            _remove(parts)
            return read_arrays(found[0])
        started_s = time.monotonic()
        made = compute(replace(self, folder=parts))
        if time.monotonic() - started_s >= self.worth_s:
            self._keep_arrays(name, made)
        _remove(parts)
        return made

    def files(self, name: str, make: Callable[[Path], str], out: Path) -> str:
        """See `Kept.files`; nothing is copied where the file system has hard links."""
        content, told = self._whole(name) or self._make(name, make)
        link_files(content, out)
        return told

    def part(self, name: str) -> Kept:
        """Pieces in a folder of their own."""
        return replace(self, folder=self.folder / f"{_file_name(name)}.part")

    def workplace(self, out: Path) -> Path:
        """A folder that stays."""
        del out
        folder = self.folder / _WORK
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def last_state(self, name: str) -> tuple[int, Arrays] | None:
        """The latest one that is whole."""
        for number in sorted(self._states(name), reverse=True):
            found = self._whole(_state(name, number))
            if found is not None:
                return number, read_arrays(found[0])
        return None

    def keep_state(self, name: str, number: int, arrays: Arrays) -> None:
        """The one before goes when this one is there."""
        self._keep_arrays(_state(name, number), arrays)
        for other in self._states(name) - {number}:
            _remove(self.folder / _file_name(_state(name, other)))

    def _states(self, name: str) -> set[int]:
        start = _file_name(_state(name, 0)).removesuffix("0")
        found = (path.name.removeprefix(start) for path in self.folder.glob(f"{start}*"))
        return {int(number) for number in found if number.isdecimal()}

    def _keep_arrays(self, name: str, arrays: Arrays) -> None:
        def write(folder: Path) -> str:
            write_arrays(folder, arrays)
            return ""

        self._make(name, write)

    def _whole(self, name: str) -> tuple[Path, str] | None:
        """A piece's content and what was told of it, if it is what was sealed."""
        piece = self.folder / _file_name(name)
        try:
            seal = json.loads((piece / _SEAL).read_bytes())
            tree = read_tree(piece / _CONTENT, StatMemo(), hidden=True)
        except (OSError, ValueError):
            return None
        if seal["digest"] != tree.digest:
            return None
        told: str = seal["told"]
        return piece / _CONTENT, told

    def _make(self, name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
        aside = self.folder / f"{_MAKING}{uuid.uuid4().hex}"
        disk = Disk()
        try:
            (aside / _CONTENT).mkdir(parents=True)
            told = make(aside / _CONTENT)
            digest = read_tree(aside / _CONTENT, StatMemo(), hidden=True).digest
            seal = json.dumps({"digest": digest, "told": told}).encode()
            disk.sync_tree(aside / _CONTENT)
            disk.write(aside / _SEAL, seal)
            piece = self.folder / _file_name(name)
            _remove(piece)
            disk.move(aside, piece)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return piece / _CONTENT, told


def sweep(folder: Path) -> None:
    """Remove what a killed builder was making; only for who may build there."""
    for torn in sorted(folder.rglob(f"{_MAKING}*")):
        shutil.rmtree(torn, ignore_errors=True)


def holds_work(folder: Path) -> bool:
    """Whether a folder has a piece, or an account with anything in it."""
    pieces = folder.rglob(f"*/{_SEAL}")
    account = (folder / _WORK).rglob("[!.]*")
    return any(not path.parent.name.startswith(_MAKING) for path in pieces) or any(account)


def link_files(source: Path, target: Path) -> None:
    """Have the files below a folder in another one as well, without copying where that can be."""
    for parent, _, files in os.walk(source):
        folder = target / Path(parent).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            link_file(Path(parent, name), folder / name)


def link_file(source: Path, target: Path) -> None:
    """Have a file at a second place, which may lie on another file system."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)


def _remove(folder: Path) -> None:
    if folder.exists():
        aside = folder.with_name(f"{_MAKING}{uuid.uuid4().hex}")  # never seen half gone
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _state(name: str, number: int) -> str:
    return f"{name} {number}"


def _file_name(name: str) -> str:
    return quote(name, safe=" @")
