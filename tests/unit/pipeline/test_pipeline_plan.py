"""`plan` tells hit or miss with the reason, and leaves the disk as it was."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy_build import run_toys, toy_stage
from toy_stages import TextConfig

from fastvlm_compile import verdict
from fastvlm_compile.cli import cli
from fastvlm_compile.key import ToolVersions
from fastvlm_compile.latest import load_record
from fastvlm_compile.stage import Plan, Source
from fastvlm_compile.store import Store


def _plan(outside: Path, *, text: str = "a") -> Plan:
    first = toy_stage("write", TextConfig(text=text), name="first")
    second = toy_stage("join", name="second", inputs={"a": "first"})
    third = toy_stage("join", TextConfig(text="3"), name="third", inputs={"b": "outside"})
    return Plan(
        recipe="toy",
        sources=(Source(name="outside", path=outside),),
        stages=(first, second, third),
        recipe_keys={"first": {"text": "say.text"}},
    )


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "text").write_text("from outside")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "store")


def _told(plan: Plan, store: Store) -> dict[str, str]:
    record = load_record(store, plan.recipe)
    return {found.stage: str(found) for found in verdict.verdicts(plan, store, record)}


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and modification time."""
    return {
        str(Path(parent, name).relative_to(folder)): (
            Path(parent, name).stat().st_size,
            Path(parent, name).stat().st_mtime_ns,
        )
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def test_before_the_first_build_nothing_is_there_and_nothing_is_made(
    store: Store, outside: Path, tmp_path: Path
) -> None:
    before = _snapshot(tmp_path)
    assert _told(_plan(outside), store) == {
        "first": "miss: never built",
        "second": "miss: waits for first",
        "third": "miss: never built",
    }
    assert _snapshot(tmp_path) == before


def test_after_a_build_everything_hits_and_looking_changes_nothing(
    store: Store, outside: Path, tmp_path: Path
) -> None:
    run_toys(_plan(outside), store.root)
    before = _snapshot(tmp_path)
    assert set(_told(_plan(outside), store).values()) == {"hit"}
    assert _snapshot(tmp_path) == before


def test_a_changed_recipe_key_is_told_with_both_values(store: Store, outside: Path) -> None:
    run_toys(_plan(outside), store.root)
    assert _told(_plan(outside, text="b"), store) == {
        "first": 'miss: recipe key say.text: "a" -> "b"',
        "second": "miss: waits for first",
        "third": "hit",
    }


def test_a_changed_source_is_told_by_its_name(store: Store, outside: Path) -> None:
    run_toys(_plan(outside), store.root)
    (outside / "text").write_text("changed")
    assert _told(_plan(outside), store)["third"] == "miss: input outside changed"


def test_a_changed_stage_upstream_is_told_once_its_output_is_known(
    store: Store, outside: Path
) -> None:
    run_toys(_plan(outside), store.root)
    plan = _plan(outside, text="b")
    run_toys(dataclasses.replace(plan, stages=plan.stages[:1], recipe="toy2"), store.root)
    assert _told(plan, store)["second"] == "miss: input first changed"


def test_changed_code_and_tools_are_told(
    store: Store, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toys(_plan(outside), store.root)

    def newer(self: ToolVersions, stage: object) -> dict[str, str]:
        return {"python": "9.9"}

    monkeypatch.setattr(ToolVersions, "of", newer)
    told = _told(_plan(outside), store)["first"]
    assert told.startswith("miss: tool python 3.")
    assert told.endswith(" -> 9.9")


def test_a_corrupt_entry_is_told_with_what_is_wrong(store: Store, outside: Path) -> None:
    folder = run_toys(_plan(outside), store.root).artifacts["third"].folder
    (folder / "text").unlink()
    assert _told(_plan(outside), store)["third"] == "miss: entry corrupt: text is missing"


def test_an_entry_that_was_removed_is_told(store: Store, outside: Path) -> None:
    import shutil

    folder = run_toys(_plan(outside), store.root).artifacts["third"].folder
    shutil.rmtree(folder.parent)
    assert _told(_plan(outside), store)["third"] == "miss: its entry was removed from the store"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A full-size recipe that synthesizes its weights; planning it costs nothing."""
    shipped = Path(__file__).parents[3] / "recipes" / "0.5b.yaml"
    monkeypatch.chdir(tmp_path)
    return str(shipped)


@pytest.mark.parametrize("arguments", [["plan"], ["build", "--dry-run"]])
def test_the_commands_print_every_stage_and_make_no_store(
    recipe: str, tmp_path: Path, arguments: list[str]
) -> None:
    outcome = CliRunner().invoke(cli, [arguments[0], recipe, *arguments[1:]])
    assert outcome.exit_code == 0, outcome.output
    head, *lines, total = outcome.stdout.splitlines()
    assert head.split() == ["stage", "memory", "disk", "time"]
    told = [(line.split()[0], line[line.index("miss: ") :]) for line in lines]
    assert told[0] == ("weights", "miss: never built")
    assert told[1] == ("checkpoint", "miss: waits for weights")
    assert len({line.index("miss: ") for line in lines}) == 1, "one column"
    assert total.startswith("at most ")
    assert {"golden", "quantize.mixed", "parity.mlx.int4"} <= {stage for stage, _ in told}
    assert not any(tmp_path.iterdir())


def test_status_counts_the_stages_and_writes_nothing(recipe: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(cli, ["status", recipe])
    lines = outcome.stdout.splitlines()
    assert re.fullmatch(r"stages: 0 of \d+ are built", lines[0])
    assert lines[1] == "    weights: miss: never built"
    assert lines[-2:] == [
        "gates of the latest build: not judged yet",
        "bundle: dist/0.5b is not there",
    ]
    told = json.loads(CliRunner().invoke(cli, ["status", recipe, "--json"]).stdout)
    assert told["bundle"] == {"path": "dist/0.5b", "state": "missing"}
    assert not any(tmp_path.iterdir())


def test_plan_as_json_can_be_read_by_a_program(recipe: str, tmp_path: Path) -> None:
    rows = json.loads(CliRunner().invoke(cli, ["plan", recipe, "--json"]).stdout)["stages"]
    assert rows[0]["stage"] == "weights"
    assert rows[0]["state"] == "miss"
    assert len(rows[0]["key"]) == 64
    assert rows[1].pop("estimate").keys() == {"memory_bytes", "disk_bytes", "time_s"}
    assert rows[1] == {
        "stage": "checkpoint",
        "state": "miss",
        "key": None,
        "reasons": ["waits for weights"],
    }
    assert not any(tmp_path.iterdir())
