"""`verify` in words, in JSON and in exit codes."""

import json
from pathlib import Path

import pytest

from fastvlm_compile.cli import run

Capture = pytest.CaptureFixture[str]


def test_a_whole_bundle_is_told_in_one_line(whole_bundle: Path, capsys: Capture) -> None:
    assert run(["verify", str(whole_bundle)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("whole: ")
    assert told.out.endswith("all as built\n")
    assert not told.err


def test_every_problem_is_told_and_the_exit_code_is_1(bundle: Path, capsys: Capture) -> None:
    flip(bundle / "onnx" / "embed_tokens.onnx")
    (bundle / "merges.txt").unlink()
    assert run(["verify", str(bundle)]) == 1
    told = capsys.readouterr()
    assert [line.split(": ")[:2] for line in told.out.splitlines()] == [
        ["missing", "merges.txt"],
        ["changed", "onnx/embed_tokens.onnx"],
    ]
    assert told.err.startswith(f"error: {bundle}: 2 problems found\nhint: ")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_same_is_told_as_json(bundle: Path, capsys: Capture) -> None:
    assert run(["verify", "--json", str(bundle)]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["ok"]
    assert whole["problems"] == []
    flip(bundle / "README.md")
    assert run(["verify", "--json", str(bundle)]) == 1
    damaged = json.loads(capsys.readouterr().out)
    assert not damaged["ok"]
    assert [problem["path"] for problem in damaged["problems"]] == ["README.md"]


@pytest.mark.parametrize("damage", ["cut", "absent"])
def test_a_damaged_or_absent_manifest_is_a_failed_check(
    damage: str, bundle: Path, capsys: Capture
) -> None:
    manifest = bundle / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    if damage == "cut":
        manifest.write_bytes(content[:100])
    assert run(["verify", str(bundle)]) == 1
    told = capsys.readouterr()
    assert ": manifest.json: " in told.out
    assert "1 problem found" in told.err


def test_a_folder_that_is_not_there_is_a_mistake_of_the_caller(
    tmp_path: Path, capsys: Capture
) -> None:
    assert run(["verify", str(tmp_path / "absent")]) == 2
    assert "there is no such bundle" in capsys.readouterr().err
