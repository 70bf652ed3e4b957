"""A folder's digest is of names and contents; the memo saves reading and never lies."""

import os
from pathlib import Path

import pytest

from fastvlm_compile import tree_digest
from fastvlm_compile.tree_digest import StatMemo, Tree, read_tree


def _read(folder: Path, memo: StatMemo | None = None) -> Tree:
    return read_tree(folder, memo or StatMemo(), hidden=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("one")
    (tmp_path / "sub" / "b").write_text("two")
    # The change time cannot be set back, so the memo's patience is.
    monkeypatch.setattr(tree_digest, "_CLOCK_RESOLUTION_NS", 0)
    return tmp_path


def test_equal_content_gives_one_digest_wherever_it_lies(folder: Path) -> None:
    other = folder / "sub" / "copy"
    (other / "sub").mkdir(parents=True)
    (other / "sub" / "b").write_text("two")
    (other / "a").write_text("one")
    (other / "empty").mkdir()
    copied = _read(other).digest
    (other / "a").unlink()
    (other / "sub" / "b").unlink()
    assert _read(folder).digest == copied


def test_name_and_content_both_count(folder: Path) -> None:
    before = _read(folder).digest
    (folder / "a").rename(folder / "c")
    renamed = _read(folder).digest
    (folder / "c").rename(folder / "a")
    (folder / "a").write_text("ONE")
    assert len({before, renamed, _read(folder).digest}) == 3


def test_hidden_names_count_where_they_are_asked_for(folder: Path) -> None:
    visible = read_tree(folder, StatMemo(), hidden=False).digest
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("x")
    assert read_tree(folder, StatMemo(), hidden=False).digest == visible
    assert _read(folder).digest != visible


def test_a_known_file_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = _read(folder).memo
    assert set(memo.files) == {"a", "sub/b"}

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(tree_digest, "sha256_of", refuse)
    assert _read(folder, memo).memo == memo


def test_a_memo_survives_the_disk_and_a_damaged_one_is_empty(folder: Path) -> None:
    memo = _read(folder).memo
    kept = folder / "memo.json"
    kept.write_bytes(memo.to_json())
    assert StatMemo.load(kept) == memo
    for damage in (b"", b"[1, 2]", b'{"a": 3}', b'{"a": [1, 2]}', b"\xff"):
        kept.write_bytes(damage)
        assert StatMemo.load(kept) == StatMemo()


def test_a_change_of_the_same_size_with_its_old_time_put_back_is_seen(folder: Path) -> None:
    memo = _read(folder).memo
    before = (folder / "a").stat()
    (folder / "a").write_text("ONE")
    os.utime(folder / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _read(folder, memo).digest == _read(folder).digest


def test_a_file_replaced_by_a_rename_is_seen(folder: Path) -> None:
    memo = _read(folder).memo
    (folder / "new").write_text("ONE")
    (folder / "new").rename(folder / "a")
    assert _read(folder, memo).digest == _read(folder).digest


def test_a_file_written_just_now_is_not_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one tick of the clock a second change would look like none."""
    monkeypatch.setattr(tree_digest, "_CLOCK_RESOLUTION_NS", 10**18)
    assert _read(folder).memo == StatMemo()


def test_symlinks_in_a_circle_end(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder)
    assert {file.path for file in _read(folder).files} == {"a", "sub/b"}
