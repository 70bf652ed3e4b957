"""The command line: quick to answer, and every end has its exit code and its words."""

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest

from fastvlm_compile import cli
from reference.errors import UserError

HEAVY = ("torch", "onnx", "onnxruntime", "coremltools", "skimage", "transformers", "numpy", "yaml")


@click.command()
@click.argument("kind")
def toy(kind: str) -> None:
    """Fails in every way."""
    match kind:
        case "mistake":
            raise UserError("the file is wrong", hint="mend it")
        case "bug":
            raise ValueError("we are wrong")
        case "interrupt":
            raise KeyboardInterrupt
        case "usage":
            raise click.UsageError("no such thing")
        case "exit":
            raise click.exceptions.Exit(7)


@pytest.fixture(autouse=True)
def _toy_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "toy", (f"{__name__}:toy", "A toy."))


def _imported_by(code: str) -> set[str]:
    """Which heavy modules a fresh interpreter has loaded after running the code."""
    program = f"{code}\nimport sys\nprint(*[n for n in {HEAVY!r} if n in sys.modules])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_imports_nothing_that_takes_time(name: str) -> None:
    arguments = [name, "--help"] if name else ["--help"]
    assert _imported_by(f"from fastvlm_compile.cli import run; run({arguments!r})") == set()


def test_planning_imports_nothing_that_takes_time() -> None:
    assert _imported_by("import fastvlm_compile.plan, fastvlm_compile.verdict") == {"yaml"}


def test_the_check_for_heavy_imports_can_fail() -> None:
    assert _imported_by("import numpy") == {"numpy"}


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, summary) in cli.COMMANDS.items():
        assert name in shown
        assert summary in shown


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("mistake", 2, "error: the file is wrong\nhint: mend it\n"),
        ("interrupt", 130, "error: interrupted\n"),
        ("exit", 7, ""),
        ("nothing", 0, ""),
    ],
)
def test_every_end_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], kind: str, code: int, words: str
) -> None:
    assert cli.run(["toy", kind]) == code
    assert capsys.readouterr() == ("", words)


@pytest.mark.parametrize("arguments", [["toy", "usage"], ["toy"], ["tyo"], ["--no-such-option"]])
def test_usage_errors_end_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err


def test_a_bug_ends_with_3_and_says_where_its_traceback_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["toy", "bug"]) == 3
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: internal error: ValueError: we are wrong"
    log = Path(hint.removeprefix("hint: the traceback is in ").partition(";")[0])
    assert "raise ValueError" in log.read_text()


@pytest.mark.parametrize("kind", ["mistake", "bug"])
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    cli.run(["--debug", "toy", kind])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_without_debug_no_traceback_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["toy", "bug"])
    assert "Traceback" not in capsys.readouterr().err.replace("traceback", "")
