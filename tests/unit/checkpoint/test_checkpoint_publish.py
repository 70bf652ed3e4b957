"""A checkpoint folder appears whole or not at all, and nothing of the user's is overwritten."""

import errno
from pathlib import Path

import pytest

from fastvlm_compile.checkpoint.publish import published_checkpoint
from fastvlm_compile.errors import OutputError


def fill(out, *, force=False, needed_bytes=0, text="new", failure=None) -> None:
    with published_checkpoint(out, force=force, needed_bytes=needed_bytes) as folder:
        (folder / "config.json").write_text(text)
        if failure is not None:
            raise failure


def test_a_new_folder_and_its_parents_appear(tmp_path) -> None:
    fill(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "config.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_an_empty_folder_is_taken(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_failure_leaves_no_trace(tmp_path) -> None:
    for failure in (RuntimeError("midway"), KeyboardInterrupt("midway")):
        with pytest.raises(type(failure), match="midway"):
            fill(tmp_path / "out", failure=failure)
        assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_replaced_by_force_only(tmp_path) -> None:
    out = tmp_path / "out"
    fill(out, text="old")
    (out / "more").write_text("more")
    with pytest.raises(OutputError, match="not empty") as caught:
        fill(out)
    assert "--force" in caught.value.hint
    assert (out / "config.json").read_text() == "old"
    fill(out, force=True)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == "new"


def test_even_force_does_not_replace_what_is_no_checkpoint(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(OutputError, match="not a checkpoint"):
        fill(tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_a_file_in_the_way_is_told(tmp_path) -> None:
    (tmp_path / "out").write_text("file")
    with pytest.raises(OutputError, match="out"):
        fill(tmp_path / "out", force=True)
    with pytest.raises(OutputError, match="out"):
        fill(tmp_path / "out" / "deeper")


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(OutputError, match=r"1000000000\.0 GB are needed"):
        fill(tmp_path / "deep" / "out", needed_bytes=10**18)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_place_is_told(tmp_path, monkeypatch) -> None:
    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written: Read-only"):
        fill(tmp_path / "out")


def test_a_disk_that_fills_up_midway_is_told_and_swept(tmp_path) -> None:
    with pytest.raises(OutputError, match="no space left"):
        fill(tmp_path / "out", failure=OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []
