"""A driver answers with one JSON object, or its last words are told."""

import sys
import time
from pathlib import Path

import pytest

from validation.consumers.driving import DriverError, drive


def _drive(script: str, *, timeout_s: float = 20, **options: object) -> dict[str, object]:
    return drive([sys.executable, "-c", script], timeout_s=timeout_s, **options)


def test_the_answer_is_the_object_on_the_last_line() -> None:
    assert _drive("print('loading'); print('{\"a\": [1]}'); print()") == {"a": [1]}


def test_folder_and_variables_reach_the_driver(tmp_path: Path) -> None:
    script = "import json, os; print(json.dumps({'a': os.getcwd(), 'b': os.environ['B']}))"
    found = _drive(script, folder=tmp_path, variables={"B": "c"})
    assert found == {"a": str(tmp_path.resolve()), "b": "c"}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise ValueError('no such file')", "ValueError: no such file"),
        ("import sys; print('{}'); sys.exit(3)", "ended with exit code 3 and said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal SIGKILL"),
        ("print('done')", "its last line is not JSON: 'done'"),
        ("pass", "its last line is not JSON: ''"),
        ("print([1])", r"its last line is not a JSON object: '\[1\]'"),
    ],
)
def test_any_other_end_is_told_in_one_line(script: str, words: str) -> None:
    with pytest.raises(DriverError, match=f"^{words}$"):
        _drive(script)


def test_a_driver_that_never_answers_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    started = time.monotonic()
    with pytest.raises(DriverError, match="no answer within 3 s"):
        drive([sys.executable, "-c", script, tmp_path / "pid"], timeout_s=3)
    child = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{child}/stat")
    while _runs(status):  # a process that is being killed still runs for a moment
        assert time.monotonic() - started < 20
        time.sleep(0.01)


def _runs(status: Path) -> bool:
    try:
        return status.read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
