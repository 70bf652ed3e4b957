"""Two builds of one key at once: one builds, the other waits, says for whom, and hits."""

import fcntl
import io
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import FileConfig

from fastvlm_compile.store import Store

# Builds one counting stage; the start is given from outside, so that all start together.
BUILDER = """
import sys
from pathlib import Path
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import FileConfig
sys.stdin.readline()
run_toys(toy_plan(toy_stage("count", FileConfig(path="counter"))), Path("store"))
"""


def test_of_many_builders_at_once_one_builds_and_all_succeed(tmp_path: Path) -> None:
    tests = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(tests)!r})\n{textwrap.dedent(BUILDER)}"
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = []
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("\n")
        builder.stdin.flush()
    for builder in builders:
        outputs.append(builder.communicate()[1])
        assert builder.returncode == 0, outputs[-1]
    assert (tmp_path / "counter").read_text() == "x"
    assert sum("built in" in output for output in outputs) == 1
    assert sum(output.rstrip().endswith("hit") for output in outputs) == 3


def test_the_one_that_waits_says_for_whom(tmp_path: Path) -> None:
    store = Store(root=tmp_path / "store")
    store.open()
    waiting = threading.Event()
    stream = io.StringIO()

    class Told(io.StringIO):
        def write(self, text: str) -> int:
            stream.write(text)
            if "waits for" in text:
                waiting.set()
            return len(text)

    plan = toy_plan(toy_stage("count", FileConfig(path=str(tmp_path / "counter"))))
    run_toys(plan, store.root, stream=io.StringIO())
    (key,) = store.entry_keys()
    other = threading.Thread(target=run_toys, args=(plan, store.root), kwargs={"stream": Told()})
    with store.building(key, note="toy", on_wait=lambda holder: None):
        other.start()
        assert waiting.wait(timeout=30)
    other.join(timeout=30)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith(f"{'toy'.ljust(26)}  waits for process ")
    assert lines[0].endswith(": toy")
    assert lines[1].endswith("hit")
    assert (tmp_path / "counter").read_text() == "x"


def test_a_lock_is_freed_when_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import os, sys, pathlib\n"
        "from fastvlm_compile.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), note='x'):\n"
        "    os.abort()\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
    assert died.returncode != 0
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)
        assert file.read().endswith(": x")


@pytest.mark.parametrize("held", ["exclusive", "shared"])
def test_a_store_in_use_is_seen_from_another_process(tmp_path: Path, held: str) -> None:
    code = (
        "import sys, pathlib\n"
        "from fastvlm_compile.locks import exclusive_if_free\n"
        "with exclusive_if_free(pathlib.Path(sys.argv[1])) as free:\n"
        "    print(free)\n"
    )
    path = tmp_path / "lock"

    def ask() -> str:
        command = [sys.executable, "-c", code, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    kind = fcntl.LOCK_EX if held == "exclusive" else fcntl.LOCK_SH
    with path.open("a+") as file:
        fcntl.flock(file, kind)
        assert ask() == "False"
    assert ask() == "True"
