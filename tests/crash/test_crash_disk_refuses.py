"""A full or read-only disk: told as such, nothing half-written, and the next build works."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import SizeConfig, TextConfig

from fastvlm_compile.durable import explain
from fastvlm_compile.errors import StoreError

_NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_a_smaller_output_still_fits(small_disk: Path) -> None:
    root = small_disk / "store"
    with pytest.raises(StoreError, match="there is no space left"):
        run_toys(toy_plan(toy_stage("fill", SizeConfig(size_bytes=8 << 20))), root)
    assert not any((root / "entries").iterdir())
    assert not any((root / "staging").iterdir())
    run_toys(toy_plan(toy_stage("fill", SizeConfig(size_bytes=1 << 20))), root)


def test_a_disk_that_fills_up_while_an_entry_is_finished_keeps_no_half_of_it(
    small_disk: Path,
) -> None:
    root = small_disk / "store"

    def fill_up(what: str) -> None:
        if what == "synced output":
            with (
                (small_disk / "ballast").open("wb", buffering=0) as ballast,
                contextlib.suppress(OSError),
            ):
                while True:
                    ballast.write(bytes(4096))

    plan = toy_plan(toy_stage("write", TextConfig(text="x" * 100_000)))
    with pytest.raises(StoreError, match="there is no space left"):
        run_toys(plan, root, step=fill_up)
    assert not any((root / "entries").iterdir())
    (small_disk / "ballast").unlink()
    run_toys(plan, root)


def test_a_limit_on_the_size_of_files_is_a_full_disk_as_well(tmp_path: Path) -> None:
    """Needs no root: the same way through the code by another refusal of the system."""
    plan = toy_plan(toy_stage("fill", SizeConfig(size_bytes=2 << 20)))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    try:
        with pytest.raises(StoreError, match="there is no space left"):
            run_toys(plan, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not any((tmp_path / "store" / "entries").iterdir())
    assert not any((tmp_path / "store" / "staging").iterdir())


def test_a_place_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    """Root may write everywhere, so the build runs as somebody else."""
    tmp_path.chmod(0o555)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fastvlm_compile.errors import StoreError\n"
        "from fastvlm_compile.store import Store\n"
        f"if os.geteuid() == 0: os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})\n"
        "try:\n"
        "    Store(root=Path('store')).open()\n"
        "except StoreError as error:\n"
        "    print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "store: this cannot be written: Permission denied | choose a folder that you may write "
        "to, or change its permissions\n"
    ), done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "there is no space left; nothing half-written was kept"),
        (errno.EDQUOT, "there is no space left; nothing half-written was kept"),
        (errno.EROFS, "this cannot be written: Read-only file system"),
        (errno.EACCES, "this cannot be written: Permission denied"),
        (errno.ENOTDIR, "something is in the way: Not a directory: below"),
    ],
)
def test_every_refusal_has_its_words(number: int, words: str) -> None:
    told = explain(OSError(number, os.strerror(number), "below"), StoreError, Path("place"))
    assert told is not None
    assert told.message == f"place: {words}"


def test_an_error_that_is_no_refusal_is_not_explained_away() -> None:
    assert explain(OSError(errno.EIO, "Input/output error"), StoreError, Path("place")) is None
