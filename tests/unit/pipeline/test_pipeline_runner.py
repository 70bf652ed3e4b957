"""Stages run in a child process; what they make is kept, how they fail is told, failures never."""

import io
from pathlib import Path

import pytest
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import FileConfig, TextConfig

from fastvlm_compile import runner
from fastvlm_compile.errors import ChangedError, StageError, StoreError
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.store import Store
from reference.errors import ImageError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("store")


def _lines(plan: Plan, root: Path) -> list[str]:
    stream = io.StringIO()
    run_toys(plan, root, stream=stream)
    return stream.getvalue().splitlines()


def _counting(counter: Path) -> Stage:
    return toy_stage("count", FileConfig(path=str(counter)), name="count")


def test_a_finished_stage_does_not_run_again(root: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    plan = toy_plan(_counting(counter))
    assert "built in" in _lines(plan, root)[0]
    assert _lines(plan, root) == [f"{'count'.ljust(26)}  hit"]
    assert counter.read_text() == "x"


def test_a_stage_reads_what_another_one_wrote(root: Path) -> None:
    first = toy_stage("write", TextConfig(text="a"), name="first")
    second = toy_stage("write", TextConfig(text="b"), name="second")
    both = toy_stage("join", TextConfig(text="+"), inputs={"x": "first", "y": "second"})
    finished = run_toys(toy_plan(first, second, both), root)
    assert (finished.artifacts["toy"].folder / "text").read_text() == "a+b"
    assert [entry.stage for entry in finished.ingredients] == ["first", "second", "toy"]


def test_noise_goes_to_the_log_and_one_line_to_the_console(root: Path) -> None:
    plan = toy_plan(toy_stage("write", name="a"), toy_stage("join", inputs={"a": "a"}))
    assert len(_lines(plan, root)) == 2
    logs = [path.read_text() for path in (root / "logs").glob("toy-*.log")]
    assert logs == ["noise of a library\n"]


def test_an_output_that_comes_out_the_same_is_not_a_reason_to_go_on(root: Path) -> None:
    """Early cutoff: the digest of the output counts, not what it was made of."""

    def plan(config: TextConfig) -> Plan:
        first = toy_stage("write" if config.text else "count", config, name="first")
        return toy_plan(first, toy_stage("join", name="second", inputs={"a": "first"}))

    run_toys(plan(TextConfig(text="counted")), root)
    counting = toy_stage("count", FileConfig(path="counter"), name="first")
    second = toy_stage("join", name="second", inputs={"a": "first"})
    lines = _lines(toy_plan(counting, second), root)
    assert "built in" in lines[0]
    assert lines[1].endswith("hit")


def test_a_corrupt_entry_is_warned_of_and_built_again(root: Path) -> None:
    plan = toy_plan(toy_stage("write", TextConfig(text="x")))
    folder = run_toys(plan, root).artifacts["toy"].folder
    (folder / "text").write_text("y")
    lines = _lines(plan, root)
    assert lines[0] == (
        "warning: toy: the stored result is corrupt and is built again: text was changed"
    )
    assert "built in" in lines[1]
    assert (folder / "text").read_text() == "x"


def test_a_failure_is_told_with_the_end_of_its_log_and_is_not_kept(root: Path) -> None:
    plan = toy_plan(toy_stage("fail", TextConfig(text="boom")))
    for _ in range(2):
        with pytest.raises(StageError) as caught:
            run_toys(plan, root)
        message = caught.value.message.splitlines()
        assert message[0] == "the stage toy failed: RuntimeError: boom"
        assert message[-1] == "    RuntimeError: boom"
        assert "    the last words" in message
        assert caught.value.exit_code == 3
        (log,) = (root / "logs").glob("*.log")
        assert caught.value.hint == f"the whole log is {log}"
        assert not log.is_absolute()
    assert not any((root / "entries").iterdir())
    assert not any((root / "staging").iterdir())


def test_a_users_mistake_comes_back_from_the_child_as_what_it_is(root: Path) -> None:
    with pytest.raises(ImageError) as caught:
        run_toys(toy_plan(toy_stage("refuse", TextConfig(text="no image"))), root)
    assert (caught.value.message, caught.value.hint) == ("no image", "take another one")
    assert not any((root / "entries").iterdir())


def test_a_child_that_dies_without_a_word_is_told_by_its_exit(root: Path) -> None:
    with pytest.raises(StageError, match="toy failed: ended with exit status 7 and no word"):
        run_toys(toy_plan(toy_stage("die")), root)


def test_a_stage_that_writes_nothing_is_an_internal_error(root: Path) -> None:
    with pytest.raises(ValueError, match="toy wrote no file"):
        run_toys(toy_plan(toy_stage("nothing")), root)
    assert not any((root / "entries").iterdir())


def test_a_function_that_does_not_exist_is_an_internal_error(root: Path) -> None:
    with pytest.raises(StageError, match="AttributeError"):
        run_toys(toy_plan(toy_stage("no_such_function")), root)


def test_a_full_disk_explains_whatever_error_it_caused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FULL_BYTES", 1 << 62)
    with pytest.raises(StoreError, match="there is no space left"):
        run_toys(toy_plan(toy_stage("fail", TextConfig(text="some library's words"))), root)


def _source_plan(folder: Path, **config: str) -> Plan:
    stage = toy_stage("join", TextConfig(**config), inputs={"a": "outside"})
    sources = (Source(name="outside", path=folder),)
    return Plan(recipe="toy", sources=sources, stages=(stage,))


def test_a_changed_source_is_a_miss(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "text").write_text("one")
    run_toys(_source_plan(outside), root)
    assert _lines(_source_plan(outside), root)[0].endswith("hit")
    (outside / "text").write_text("two")
    assert "built in" in _lines(_source_plan(outside), root)[0]


def test_a_source_that_changes_while_a_stage_reads_it_is_not_filed(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "text").write_text("")
    stage = toy_stage("count", FileConfig(path=str(outside / "text")), inputs={"a": "outside"})
    sources = (Source(name="outside", path=outside),)
    plan = Plan(recipe="toy", sources=sources, stages=(stage,))
    with pytest.raises(ChangedError, match="outside changed while the stage toy ran") as caught:
        run_toys(plan, root)
    assert caught.value.exit_code == 2  # not our mistake
    assert "build again" in caught.value.hint
    assert not any((root / "entries").iterdir())


def test_what_earlier_builds_finished_is_remembered_until_a_build_is_through(root: Path) -> None:
    """So that gc after a failed build keeps what the next one starts from."""
    from fastvlm_compile.latest import load_record

    good = toy_stage("write", name="good")
    with pytest.raises(StageError):
        run_toys(toy_plan(good, toy_stage("fail", name="bad")), root)
    store = Store(root=root)
    assert set(load_record(store, "toy").stages) == {"good"}
    run_toys(toy_plan(toy_stage("write", name="other")), root)
    assert set(load_record(store, "toy").stages) == {"other"}


def test_the_record_tells_which_stages_the_store_had(root: Path) -> None:
    from fastvlm_compile.latest import load_record

    good = toy_stage("write", name="good")
    store = Store(root=root)
    run_toys(toy_plan(good), root)
    assert load_record(store, "toy").restored == {"good": False}
    run_toys(toy_plan(good, toy_stage("write", name="other")), root)
    assert load_record(store, "toy").restored == {"good": True, "other": False}
