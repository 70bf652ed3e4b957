"""Steps in processes of their own: what they leave, and what is told when they fail."""

import os
import signal
from pathlib import Path

import pytest

from fastvlm_compile.export.aside import run_aside
from fastvlm_compile.export.errors import (
    ExportError,
    ExportStoppedError,
    UnsupportedExportError,
)


def note_process(path: Path) -> None:
    path.write_text(str(os.getpid()), encoding="utf-8")


def refuse(what: str) -> None:
    raise UnsupportedExportError(f"{what} cannot be", hint="take another")


def find_damage(what: str) -> None:
    raise ExportError(f"{what} is damaged")


def divide(number: int) -> None:
    number // 0


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_step_runs_in_a_process_of_its_own_and_is_awaited(tmp_path: Path) -> None:
    run_aside(note_process, tmp_path / "pid")
    assert int((tmp_path / "pid").read_text(encoding="utf-8")) != os.getpid()


def test_a_users_mistake_comes_back_in_its_class_with_its_hint() -> None:
    with pytest.raises(UnsupportedExportError) as caught:
        run_aside(refuse, "this")
    assert (caught.value.message, caught.value.hint) == ("this cannot be", "take another")


def test_a_damaged_export_comes_back_in_its_class() -> None:
    with pytest.raises(ExportError, match=r"^this is damaged$"):
        run_aside(find_damage, "this")


def test_any_other_error_shows_its_traceback_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="divide failed in a process of its own"):
        run_aside(divide, 1)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_process_that_the_system_kills_is_told_with_the_likely_cause() -> None:
    with pytest.raises(ExportStoppedError, match="die: its process was ended by SIGKILL") as caught:
        run_aside(die, int(signal.SIGKILL))
    assert "memory" in caught.value.hint
