"""What goes wrong on many machines: workers die, builds end, and not every worker is fit."""

import os
import select
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from dask_processes import TESTS, Scheduler, scheduler
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import FileConfig, TextConfig

from fastvlm_compile import cli
from fastvlm_compile.console import LineReporter
from fastvlm_compile.distributed.cluster import Cluster, connected
from fastvlm_compile.distributed.coordinate import run_on
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.errors import ClusterError, StageError
from fastvlm_compile.runner import Finished, Workshop
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from reference.errors import ImageError

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("dask")]
_PATIENCE_S = 60

# Builds a plan whose stage hangs; the stage tells its process id through the pipe `told`.
BUILDER = """
import sys
from pathlib import Path
from test_distributed_faults import hanging, run_toys_on
run_toys_on(sys.argv[1], hanging(Path.cwd()), Path("store"))
"""


def run_toys_on(address: str, plan: Plan, root: Path, **memory_bytes: int) -> Finished:
    """As `toy_build.run_toys`, by a cluster."""
    with connected(address) as cluster:
        greet(cluster, plan, root)
        return run_greeted(cluster, plan, root, **memory_bytes)


def greet(cluster: Cluster, plan: Plan, root: Path) -> None:
    location = StoreLocation.parse(str(root))
    store = location.store(root)
    store.open()
    cluster.greet([plan], store, location)


def run_greeted(cluster: Cluster, plan: Plan, root: Path, **memory_bytes: int) -> Finished:
    location = StoreLocation.parse(str(root))
    store = location.store(root)
    with store.in_use():
        workshop = Workshop(plan=plan, store=store, reporter=LineReporter(stream=sys.stderr))
        return run_on(cluster, workshop, location=location, memory_bytes=memory_bytes)


def hanging(folder: Path) -> Plan:
    """A stage that is built before, one that hangs in its first run, and one that waits for it."""
    counted = toy_stage("count", FileConfig(path=str(folder / "counter")), name="counted")
    told = FileConfig(path=str(folder / "told"))
    hangs = toy_stage("hang_once", told, name="hangs", inputs={"a": "counted"})
    last = toy_stage("join", TextConfig(text="+"), inputs={"x": "counted", "y": "hangs"})
    return toy_plan(counted, hangs, last)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "told")
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "store")


def _child_of(folder: Path) -> int:
    """The process id of the stage that hangs, once it does."""
    told = os.open(folder / "told", os.O_RDONLY | os.O_NONBLOCK)
    ready, _, _ = select.select([told], [], [], _PATIENCE_S)
    assert ready, "the stage did not start"
    child = int(os.read(told, 100))
    os.close(told)
    return child


def _wait_for_end(handle: int) -> None:
    ready, _, _ = select.select([handle], [], [], _PATIENCE_S)
    os.close(handle)
    assert ready, "the stage's process lives on"


def _parent_of(pid: int) -> int:
    """proc(5): the second field after the name, which stands in parentheses."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _text(finished: Finished) -> str:
    return (finished.artifacts["toy"].folder / "text").read_text()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to watch a grandchild")
class TestKilled:
    def test_a_worker_that_is_killed_in_mid_stage_costs_a_retry_and_nothing_else(
        self, folder: Path, cluster: Scheduler, store: Store
    ) -> None:
        plan = hanging(folder)
        with ThreadPoolExecutor(1) as thread:
            building: Future[Finished] = thread.submit(
                run_toys_on, cluster.address, plan, store.root
            )
            child = _child_of(folder)
            handle = os.pidfd_open(child)
            os.kill(_parent_of(child), signal.SIGKILL)
            _wait_for_end(handle)
            finished = building.result(timeout=_PATIENCE_S)
        assert _text(finished) == "counted+went on"
        assert (folder / "counter").read_text() == "x"  # what was finished was not run again
        assert not any((store.root / "staging").iterdir())
        alone = run_toys(plan, folder / "alone")
        digests = {name: artifact.digest for name, artifact in finished.artifacts.items()}
        assert digests == {name: artifact.digest for name, artifact in alone.artifacts.items()}
        assert finished.ingredients == alone.ingredients

    def test_a_killed_build_takes_its_stage_along_and_the_next_one_goes_on(
        self, folder: Path, cluster: Scheduler, store: Store
    ) -> None:
        code = f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(Path(__file__).parent)!r}]\n"
        command = [sys.executable, "-c", code + BUILDER, cluster.address]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as build:
            handle = os.pidfd_open(_child_of(folder))
            build.kill()
        _wait_for_end(handle)
        assert _text(run_toys_on(cluster.address, hanging(folder), store.root)) == "counted+went on"
        assert (folder / "counter").read_text() == "x"
        assert not any((store.root / "staging").iterdir())


def test_two_builds_that_need_one_stage_at_once_have_it_built_once(
    tmp_path: Path, cluster: Scheduler, store: Store
) -> None:
    plan = toy_plan(toy_stage("count", FileConfig(path=str(tmp_path / "counter"))))
    with ThreadPoolExecutor(3) as threads:
        builds = [
            threads.submit(run_toys_on, cluster.address, plan, store.root),
            threads.submit(run_toys_on, cluster.address, plan, store.root),
            threads.submit(run_toys, plan, store.root),  # and one that knows of no cluster
        ]
        digests = {build.result().artifacts["toy"].digest for build in builds}
    assert len(digests) == 1
    assert (tmp_path / "counter").read_text() == "x"


def test_a_stage_that_fails_is_told_with_its_log_and_what_runs_beside_it_is_kept(
    cluster: Scheduler, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = toy_stage("fail", TextConfig(text="boom"), name="bad")
    good = toy_stage("write", TextConfig(text="kept"), name="good")
    plan = toy_plan(bad, good, toy_stage("join", inputs={"a": "bad", "b": "good"}))
    with pytest.raises(StageError, match="the stage bad failed: RuntimeError: boom") as caught:
        run_toys_on(cluster.address, plan, store.root)
    assert "the last words" in caught.value.message
    assert len(store.entry_keys()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{'bad'.ljust(26)}  failed" in lines
    assert any(line.startswith("good ") and "built in" in line for line in lines)


def test_a_users_mistake_comes_back_from_a_worker_as_what_it_is(
    cluster: Scheduler, store: Store
) -> None:
    plan = toy_plan(toy_stage("refuse", TextConfig(text="no image")))
    with pytest.raises(ImageError) as caught:
        run_toys_on(cluster.address, plan, store.root)
    assert (caught.value.message, caught.value.hint) == ("no image", "take another one")


@pytest.fixture
def changed_toys(tmp_path: Path) -> Path:
    """A folder with other code of the stages."""
    folder = tmp_path / "changed"
    folder.mkdir()
    (folder / "toy_stages.py").write_text((TESTS / "toy_stages.py").read_text() + "\n# changed\n")
    return folder


class TestUnfit:
    def test_a_worker_with_other_code_is_named_and_refused_before_anything_runs(
        self, tmp_path: Path, changed_toys: Path, store: Store
    ) -> None:
        plan = toy_plan(toy_stage("write"))
        with (
            scheduler(tmp_path) as running,
            running.worker(path=changed_toys),
            pytest.raises(ClusterError, match="code of toy_stages differs") as caught,
        ):
            run_toys_on(running.address, plan, store.root)
        assert caught.value.message.startswith("the worker tcp://127.0.0.1:")
        assert caught.value.exit_code == 2
        assert not store.entry_keys()

    def test_a_worker_with_other_code_that_comes_later_cannot_prove_the_key(
        self, tmp_path: Path, changed_toys: Path, store: Store
    ) -> None:
        plan = toy_plan(toy_stage("write"))
        with scheduler(tmp_path) as running, connected(running.address) as cluster:
            with running.worker():
                greet(cluster, plan, store.root)
            with (
                running.worker(path=changed_toys),
                pytest.raises(ClusterError, match="toy: code of toy_stages changed"),
            ):
                run_greeted(cluster, plan, store.root)
        assert not store.entry_keys()

    def test_a_worker_that_declares_no_memory_is_refused_with_what_to_start_it_with(
        self, tmp_path: Path, store: Store
    ) -> None:
        with (
            scheduler(tmp_path) as running,
            running.worker(memory=""),
            pytest.raises(ClusterError, match="does not say how much memory") as caught,
        ):
            run_toys_on(running.address, toy_plan(toy_stage("write")), store.root)
        assert "--resources" in caught.value.hint

    def test_a_stage_gets_the_memory_it_took_last_time_or_else_what_is_estimated(
        self, tmp_path: Path, store: Store
    ) -> None:
        first = toy_plan(toy_stage("write", TextConfig(text="1")))
        second = toy_plan(toy_stage("write", TextConfig(text="2")))
        with scheduler(tmp_path) as running, running.worker(memory="memory=5e8"):
            with pytest.raises(ClusterError, match=r"toy needs 2\.1 GB of memory, .* 500\.0 MB"):
                run_toys_on(running.address, first, store.root)
            run_toys_on(running.address, first, store.root, toy=400_000_000)
            run_toys_on(running.address, second, store.root, toy=600_000_000)

    def test_no_scheduler_ends_with_2_and_its_address(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = TESTS.parent / "recipes" / "real-tower.yaml"
        monkeypatch.chdir(tmp_path)
        assert cli.run(["build", str(recipe), "--scheduler", "tcp://127.0.0.1:9"]) == 2
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith("error: tcp://127.0.0.1:9: no scheduler answers here")
        assert told[1].startswith("hint: start one with `dask scheduler`")
        assert len(told) == 2
