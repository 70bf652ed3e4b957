"""`plan` and `build` tell what a build takes; `build` refuses what does not fit."""

import json
from pathlib import Path

import pytest

from fastvlm_compile.cli import run
from fastvlm_compile.estimate import room
from fastvlm_compile.estimate.room import Room

RECIPES = Path(__file__).parents[3] / "recipes"
_GB = 10**9


@pytest.fixture
def small_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder on a machine with 2 GB of memory and 30 GB of disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        room, "room_here", lambda folder: Room(memory_bytes=2 * _GB, disk_bytes=30 * _GB)
    )
    return tmp_path


def test_a_build_that_does_not_fit_ends_with_code_2_before_anything_starts(
    small_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", str(RECIPES / "7b.yaml")]) == 2
    captured = capsys.readouterr()
    warning, error, hint = captured.err.splitlines()
    assert warning.startswith("warning: checkpoints/llava-fastvithd_7b_stage3: the released")
    assert error.startswith("error: a build of 7b does not fit here: the stage ")
    assert " more than the 2.0 GB that are available; its stages and the bundle take " in error
    assert error.endswith(" more than the 30.0 GB that are free")
    assert hint.endswith("; --even-if-too-large builds it nevertheless")
    assert captured.out == ""
    assert not any(small_machine.iterdir())


def test_a_plan_that_does_not_fit_is_shown_with_a_warning(
    small_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(RECIPES / "7b.yaml")]) == 0
    captured = capsys.readouterr()
    assert "warning: a build of 7b does not fit here: " in captured.err
    assert captured.out.splitlines()[-1].startswith("at most ")
    assert not any(small_machine.iterdir())


def test_the_plan_as_json_has_every_estimate_and_their_total(
    small_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(RECIPES / "real-tower.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stages = {row["stage"]: row["estimate"] for row in found["stages"]}
    total = found["total"]
    assert total["memory_bytes"] == max(each["memory_bytes"] for each in stages.values())
    assert total["disk_bytes"] == sum(each["disk_bytes"] for each in stages.values())
    assert stages[total["largest"]]["memory_bytes"] == total["memory_bytes"]
    assert found["device"] is None


def test_outcomes_before_any_build_are_none(
    small_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(RECIPES / "real-tower.yaml")
    assert run(["plan", recipe, "--outcomes"]) == 0
    assert capsys.readouterr().out == "nothing was built since estimates are recorded\n"
    assert run(["plan", recipe, "--outcomes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recipe": "real-tower", "stages": []}
