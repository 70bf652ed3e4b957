"""A build that is killed in mid-stage keeps the pieces of its work; the next one goes on there."""

import io
from collections.abc import Callable

import pytest
from resume_build import Builds
from toy_build import run_toys
from toy_stages import TextConfig

from fastvlm_compile.errors import StageError
from fastvlm_compile.latest import load_record
from fastvlm_compile.status import recipe_status
from fastvlm_compile.store_care import collect, inventory
from fastvlm_compile.tree_digest import StatMemo


def test_pieces_that_were_made_are_not_made_again(builds: Callable[..., Builds]) -> None:
    build = builds("pieces", TextConfig(text="abcd"))
    assert build.run(2) == ["a", "b"]
    assert build.run() == ["c", "d"]
    assert build.said.rstrip().endswith(", resumed"), build.said
    assert not any((build.folder / "store" / "kept").iterdir())
    assert sorted(path.name for path in build.output().iterdir()) == ["a", "b", "c", "d"]
    assert build.run() == [], "and the entry is a hit"
    assert build.said.rstrip().endswith("hit")


def test_a_second_kill_loses_no_piece_of_the_first_build(builds: Callable[..., Builds]) -> None:
    build = builds("pieces", TextConfig(text="abcd"))
    assert build.run(1) == ["a"]
    assert build.run(2) == ["b", "c"]
    assert build.run() == ["d"]
    assert sorted(path.name for path in build.output().iterdir()) == ["a", "b", "c", "d"]


def test_a_torn_piece_is_made_again(builds: Callable[..., Builds]) -> None:
    build = builds("pieces", TextConfig(text="abcd"))
    build.run(3)
    (folder,) = (build.folder / "store" / "kept").iterdir()
    (folder / "a" / "content" / "a").write_text("A")
    (folder / "b" / "seal.json").unlink()
    assert build.run() == ["a", "b", "d"]
    assert (build.output() / "a").read_text() == "a"


def test_a_stage_that_fails_keeps_its_pieces(
    builds: Callable[..., Builds], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = builds("pieces", TextConfig(text="ab!"))
    monkeypatch.setenv("TOLD", str(build.folder / "told"))
    for expected in (["a", "b", "!"], ["a", "b", "!", "!"]):
        with pytest.raises(StageError, match="no such letter"):
            run_toys(build.plan, build.store.root, stream=io.StringIO())
        assert (build.folder / "told").read_text().splitlines() == expected
    assert not any((build.folder / "store" / "staging").iterdir())


def test_another_config_does_not_see_the_pieces(builds: Callable[..., Builds]) -> None:
    build = builds("pieces", TextConfig(text="abcd"))
    build.run(2)
    other = builds("pieces", TextConfig(text="abd"))
    assert other.run() == ["a", "b", "d"]


def test_kept_pieces_are_told_of_and_stay_until_nobody_wants_them(
    builds: Callable[..., Builds],
) -> None:
    build = builds("pieces", TextConfig(text="abcd"))
    build.run(2)
    store = build.store
    (verdict,) = recipe_status(build.plan, store, build.folder / "dist").verdicts
    assert str(verdict) == "miss: never built; some of its work is kept"
    (listed,) = inventory(store)
    assert (listed.stage, listed.unfinished, listed.recipes) == ("only", True, ("resume",))
    assert collect(store, keep_days=0.0, now_s=2e9) == ()
    assert build.kept()
    other = builds("pieces", TextConfig(text="x"))
    other.run()  # the recipe has changed: who wants these pieces?
    assert [each.unfinished for each in collect(store, keep_days=0.0, now_s=2e9)] == [True]
    assert not any((build.folder / "store" / "kept").iterdir())
    assert load_record(store, "resume").begun == {}
    assert other.run() == []


def test_removing_the_pieces_leaves_the_entry_as_quick_to_verify(
    builds: Callable[..., Builds],
) -> None:
    """Links that go change times of the file that stays."""
    build = builds("pieces", TextConfig(text="abcd"))
    build.run(2)
    build.run()
    entry = build.store.look(build.output().parent.name)
    assert entry is not None
    kept = StatMemo.load(build.folder / "store" / "stat" / f"{entry.key}.json")
    # Files of the last moments are read once more; those before are not.
    assert {"a", "b"} <= kept.files.keys()
