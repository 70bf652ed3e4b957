"""A checkpoint directory that appears complete, by one rename, or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fastvlm_compile.bundle.publish import published
from fastvlm_compile.console import format_bytes
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import OutputError

_MARKER = "config.json"
"""What shows that a folder is a checkpoint, which `force` may replace."""


@contextlib.contextmanager
def published_checkpoint(out: Path, *, force: bool, needed_bytes: int) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well, it takes the name `out`.

    Args:
        out: what shall exist afterwards; its parents are made.
        force: replace a checkpoint that stands at `out`. Otherwise only an empty folder may.
        needed_bytes: what will be written, checked against the free space first.

    Raises:
        OutputError: `out` is taken, cannot be written, or the disk is too full.
    """
    _check_free(out, force=force)
    _check_space(out, needed_bytes)
    with published(out, marker=_MARKER, disk=Disk()) as folder:
        yield folder


def _check_free(out: Path, *, force: bool) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise OutputError(
            f"{out}: the folder is not empty",
            hint="name another folder, or give --force to replace the checkpoint in it",
        )
    if not (out / _MARKER).is_file():
        raise OutputError(
            f"{out}: the folder holds something that is not a checkpoint (it has no {_MARKER})",
            hint="name another folder, or empty this one yourself",
        )


def _check_space(out: Path, needed_bytes: int) -> None:
    standing = next(parent for parent in (out, *out.absolute().parents) if parent.is_dir())
    free_bytes = shutil.disk_usage(standing).free
    if needed_bytes > free_bytes:
        raise OutputError(
            f"{out}: {format_bytes(needed_bytes)} are needed, {format_bytes(free_bytes)} are free",
            hint="free some space, or name a folder on another disk",
        )
