"""Changes of the disk that survive a power cut, and the words for when the disk refuses them."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reference.errors import UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
ASIDE = ".new-"
_GONE = ".gone-"
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


class Step(Protocol):
    """Told after each durable change. Tests kill the process in it: any moment must do."""

    def __call__(self, what: str) -> None: ...


def no_step(what: str) -> None:
    """The `Step` of every build that is not a test."""
    del what


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The only place that writes, moves and removes what a later build relies on."""

    step: Step = no_step

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, if they are not there."""
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self.step(f"made {folder.name}")

    def write(self, path: Path, data: bytes) -> None:
        """Put a file in place with all of `data`, or leave what was there."""
        aside = path.with_name(f"{ASIDE}{uuid.uuid4().hex}")
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.step(f"wrote {path.name} aside")
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(path.parent)
        self.step(f"renamed {path.name}")

    def sync_tree(self, folder: Path) -> None:
        """Flush every file and folder below and including `folder` to the medium."""
        for parent, _, files in os.walk(folder):
            for name in files:
                sync_file(Path(parent, name))
            _sync_folder(Path(parent))
        self.step(f"synced {folder.name}")

    def move(self, source: Path, target: Path) -> None:
        """Rename a folder to a name that is free."""
        source.rename(target)
        _sync_folder(target.parent)
        if source.parent != target.parent:
            _sync_folder(source.parent)
        self.step(f"moved {target.name}")

    def remove(self, folder: Path) -> None:
        """Remove a folder; away from its name first, so that it is never seen half gone."""
        doomed = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        self.step(f"set {folder.name} aside")
        # A dying worker may still be writing into it: what is left now goes with the next sweep.
        shutil.rmtree(doomed, ignore_errors=True)
        self.step(f"removed {folder.name}")

    def sweep(self, folder: Path) -> None:
        """Remove what an interrupted `remove` left in a folder."""
        for doomed in folder.glob(f"{_GONE}*"):
            shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def refusals(kind: type[UserError], place: Path) -> Iterator[None]:
    """Turn a disk's refusal to store something at `place` into an error of `kind`."""
    try:
        yield
    except OSError as error:
        explained = explain(error, kind, place)
        if explained is None:
            raise
        raise explained from error


def explain(error: OSError, kind: type[UserError], place: Path) -> UserError | None:
    """The disk's refusal in a user's words; None for an error that is no refusal."""
    if error.errno in FULL:
        return no_space(kind, place)
    if error.errno in _REFUSED:
        return kind(
            f"{place}: this cannot be written: {error.strerror}",
            hint="choose a folder that you may write to, or change its permissions",
        )
    if error.errno in _IN_THE_WAY:
        return kind(f"{place}: something is in the way: {error.strerror}: {error.filename}")
    return None


def no_space(kind: type[UserError], place: Path) -> UserError:
    """The error for a full disk."""
    return kind(
        f"{place}: there is no space left; nothing half-written was kept",
        hint="free some space (`fastvlm-compile store gc` drops what no recipe uses any more)",
    )


def sync_file(path: Path) -> None:
    """Flush a file to the medium."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
