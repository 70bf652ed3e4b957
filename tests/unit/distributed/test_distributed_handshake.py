"""What a worker must show; and a local build knows nothing of any of it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_build import toy_plan, toy_stage

from fastvlm_compile import cli, locks
from fastvlm_compile.distributed.handshake import Question, Requirements, examine
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.telling import StoppedError, Telling
from fastvlm_compile.key import ToolVersions
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import Inspector


def _question(place: str, token: str) -> Question:
    needs = Requirements.of([toy_plan(toy_stage("write"))])
    return Question(
        store=place,
        token=token,
        modules=list(needs.modules),
        packages=list(needs.packages),
        tools=["numpy", "no-such-tool"],
    )


@pytest.mark.parametrize("kind", ["path", "url"])
def test_a_store_in_which_the_builds_token_is_not_seen_is_another_one(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "store").mkdir()
    place = f"file://{tmp_path}/store" if kind == "url" else str(tmp_path / "store")
    worker = SimpleNamespace(local_directory=str(tmp_path / "scratch" / "worker-1"))
    answer = examine(_question(place, "token"), worker)
    assert answer["store_problem"] == "what this build wrote there is not there for it"
    with locks.exclusive(tmp_path / "store" / "token", note="the build that asks"):
        assert not examine(_question(place, "token"), worker)["store_problem"]


def test_a_file_system_that_keeps_locks_to_one_machine_is_refused(tmp_path: Path) -> None:
    """To a worker on another machine the build's token would look like this: there, and free."""
    (tmp_path / "token").touch()
    worker = SimpleNamespace(local_directory=str(tmp_path / "worker-1"))
    answer = examine(_question(str(tmp_path), "token"), worker)
    assert (
        answer["store_problem"] == "its file system does not pass locks (flock) on between machines"
    )


def test_a_worker_shows_the_code_and_the_tools_that_enter_keys(tmp_path: Path) -> None:
    plan = toy_plan(toy_stage("write"))
    worker = SimpleNamespace(local_directory=str(tmp_path / "worker-1"))
    answer = examine(_question(str(tmp_path), "token"), worker)
    in_key = Inspector(plan).ingredients(plan.stages[0], {})
    assert in_key.code.items() <= answer["code"].items()
    assert "fastvlm_compile.runner" in answer["code"]
    assert answer["versions"]["python"] == ToolVersions().of(plan.stages[0])["python"]
    assert answer["versions"]["no-such-tool"] == "none"


@pytest.mark.parametrize("state", [None, SimpleNamespace(state="cancelled")])
def test_a_stage_that_nobody_waits_for_is_stopped(state: SimpleNamespace | None) -> None:
    tasks = {} if state is None else {"task": state}
    worker = SimpleNamespace(state=SimpleNamespace(tasks=tasks), log_event=lambda *event: None)
    with pytest.raises(StoppedError):
        Telling(worker, "task").progress(1, 2, "layer")


def test_progress_is_told_once_a_second_and_the_rest_always() -> None:
    told = []
    worker = SimpleNamespace(
        state=SimpleNamespace(tasks={"task": SimpleNamespace(state="executing")}),
        log_event=lambda topic, event: told.append((event["kind"], event["arguments"])),
    )
    telling = Telling(worker, "task")
    telling.started("toy")
    for done in range(100):
        telling.progress(done, 100, "layer")
    telling.warning("careful")
    assert told == [("started", ["toy"]), ("progress", [0, 100, "layer"]), ("warning", ["careful"])]


def test_a_local_build_imports_nothing_of_dask_or_fsspec(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import toy_build\n"
        "from pathlib import Path\n"
        "import fastvlm_compile.builds, fastvlm_compile.commands.build as command\n"
        "store, _ = command._store('store', Path('local'), shared=False)\n"
        "toy_build.run_toys(toy_build.two_stages(), store.root)\n"
        "print(*[n for n in ('distributed', 'dask', 'fsspec') if n in sys.modules])\n"
    )
    tests = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(tests)!r})\n{program}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert Store(root=tmp_path / "store").entry_keys()


def test_other_commands_say_that_a_url_is_for_build_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["store", "ls", "--store", "s3://bucket/store"]) == 2
    assert "only `build` takes a URL" in capsys.readouterr().err


def test_a_path_and_a_url_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert StoreLocation.parse("store").address == str(tmp_path / "store")
    assert StoreLocation.parse("s3://bucket/store").is_url
