"""A folder that takes its name complete, by one rename, and leaves the old one whole until then.

Killed at any moment, the name holds the old folder or the new one; what is left beside it goes with
the next publication. Where neither the kernel nor the file system can swap two names in one step,
the name is free for the instant between two renames, and the next publication mends a kill there.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from fastvlm_compile.durable import Disk, refusals
from fastvlm_compile.errors import OutputError

Exchange = Callable[[Path, Path], bool]

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renamex_np(2)
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV})


def exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; False where that is not possible.

    Raises:
        OSError: the step is possible but was refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(names[0], names[1], _EXCHANGE)
        else:
            failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    except AttributeError:
        return False  # a C library without the call
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one))


@contextlib.contextmanager
def published(
    out: Path, *, marker: str, disk: Disk, exchange: Exchange = exchange
) -> Iterator[Path]:
    """Gives an empty folder beside `out`; when the block ends well, it takes the name `out`.

    Args:
        out: the name to take. What stands there is replaced only if it is empty or holds `marker`.
        marker: name of a file that shows that a folder is a former publication.
        disk: what writes, so that tests can stop it at any step.
        exchange: swaps two names in one step, or says that it cannot.

    Raises:
        OutputError: `out` is something else, cannot be written, or the disk is full.
    """
    with refusals(OutputError, out):
        disk.make_folder(out.parent)
        out = out.parent.resolve() / out.name
        check_replaceable(out, marker)
        with _locked(out.parent):
            _sweep(out)
            partial = out.with_name(f".{out.name}.partial-{uuid.uuid4().hex}")
            partial.mkdir()
            mine = _try_lock(partial)
        try:
            disk.step(f"made {partial.name}")
            yield partial
            disk.sync_tree(partial)
            with _locked(out.parent):
                check_replaceable(out, marker)
                _swap_in(partial, out, disk, exchange)
        finally:
            # Also the old folder, which has this name after an exchange.
            shutil.rmtree(partial, ignore_errors=True)
            if mine is not None:
                os.close(mine)


def check_replaceable(out: Path, marker: str) -> None:
    """Raises OutputError if `out` is not a free name, an empty folder or a former publication."""
    if out.is_symlink():
        raise OutputError(f"{out}: a symbolic link stands there", hint="remove it or name another")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: a file stands there", hint="remove it or name another folder")
    if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
        raise OutputError(
            f"{out}: the folder holds something that is not a bundle (it has no {marker})",
            hint="name another folder, or empty this one yourself",
        )


def _swap_in(partial: Path, out: Path, disk: Disk, exchange: Exchange) -> None:
    if not out.exists():
        disk.move(partial, out)
    elif exchange(partial, out):
        _sync(out.parent)
        disk.step(f"exchanged {out.name}")
    else:
        aside = out.with_name(f".{out.name}.old-{uuid.uuid4().hex}")
        disk.move(out, aside)
        try:
            disk.move(partial, out)
        except OSError:
            aside.rename(out)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Removes what killed publications left; gives `out` its old folder back if it lost it."""
    for aside in sorted(out.parent.glob(f".{out.name}.old-*")):
        if out.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(out)
    for partial in out.parent.glob(f".{out.name}.partial-*"):
        lock = _try_lock(partial)
        if lock is not None:  # nobody is filling it any more
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Publications beside each other take turns in the steps that look at each other's folders."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _try_lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock until it is closed; None if another one holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
