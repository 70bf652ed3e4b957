"""The connection to a Dask scheduler: tasks, what they tell while they run, how they end."""

import contextlib
import logging
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_compile.console import Reporter
from fastvlm_compile.distributed.handshake import Requirements, greet
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.task import StageTask, TaskOutcome, protocol, run_task
from fastvlm_compile.distributed.telling import TOPIC
from fastvlm_compile.errors import ClusterError, StageError, ToolError
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

MEMORY = "memory"
"""The resource, in bytes, that workers declare and tasks take."""
_PATIENCE_S = 30.0
_START = 'dask worker ADDRESS --nthreads 2 --resources "memory=16e9"'


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A task that ended."""

    task: str
    future: "Future[TaskOutcome]"


class Cluster:
    """Workers behind a scheduler; its methods may be called by the threads of several builds."""

    def __init__(self, client: "Client", address: str) -> None:
        self._client = client
        self._address = address
        self._protocol = protocol()
        self._listeners: dict[str, list[Reporter]] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        """Set when the builds are to give up."""
        client.subscribe_topic(TOPIC, self._hear)

    def greet(
        self, plans: Iterable[Plan], store: Store, location: StoreLocation
    ) -> tuple[Path, ...]:
        """See `handshake.greet`; here the workers' memory is looked at as well.

        Raises:
            ClusterError: there is no worker, or one is not fit.
        """
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError:
            raise ClusterError(
                f"{self._address}: no worker is connected to this scheduler",
                hint=f"start some: {_START.replace('ADDRESS', self._address)}",
            ) from None
        for worker, resources in self._resources().items():
            if MEMORY not in resources:
                raise ClusterError(
                    f"the worker {worker} does not say how much memory its stages may use",
                    hint=f"start it with its bytes: {_START.replace('ADDRESS', self._address)}",
                )
        return greet(self._client, Requirements.of(plans), store, location)

    def largest_memory(self) -> int:
        """Bytes of the worker that has most of it; 0 while none is connected."""
        declared = self._resources().values()
        return max((int(resources.get(MEMORY, 0)) for resources in declared), default=0)

    def _resources(self) -> dict[str, dict[str, float]]:
        """What each worker declares, by its address."""
        workers = self._client.scheduler_info()["workers"]
        return {address: worker["resources"] for address, worker in sorted(workers.items())}

    def submit(
        self,
        task: StageTask,
        *,
        memory_bytes: int,
        reporter: Reporter,
        on_end: Callable[[Ended], None],
    ) -> "Future[TaskOutcome]":
        """Have a stage run by whichever worker has the memory.

        Args:
            task: its name is that of the Dask task: two builds that ask for one get one.
            memory_bytes: what it takes of the worker's.
            reporter: told what the worker tells.
            on_end: called once, in another thread.

        Returns:
            What must be held for as long as the outcome is wanted.
        """
        with self._lock:
            self._listeners.setdefault(task.name, []).append(reporter)
        payload = pickle.dumps(task)
        future = self._client.submit(
            run_task,
            payload,
            self._protocol,
            key=task.name,
            resources={MEMORY: memory_bytes},
            pure=False,
        )
        future.add_done_callback(lambda ended: on_end(Ended(task=task.name, future=ended)))
        return future

    def outcome(self, ended: Ended, reporter: Reporter) -> TaskOutcome:
        """How a task ended; it is forgotten, here and by the scheduler.

        Raises:
            ClusterError: the scheduler has gone.
            StageError: every worker that ran it died.
            Exception: whatever went wrong in the worker that is our mistake.
        """
        with self._lock:
            self._listeners[ended.task].remove(reporter)
        future = ended.future
        try:
            if future.status == "finished":
                outcome: TaskOutcome = future.result()
                return outcome
            if future.status == "error":
                raise _explained(future.exception(), ended.task)
            raise ClusterError(
                f"{self._address}: the scheduler has gone or gave the work up",
                hint="what was finished is in the store: build again when it is back",
            )
        finally:
            future.release()

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, told = event
        with self._lock:
            listeners = tuple(self._listeners.get(told["task"], ()))
        for reporter in listeners:
            _pass_on(reporter, told["kind"], told["arguments"])


def _pass_on(reporter: Reporter, kind: str, arguments: list[Any]) -> None:
    match kind:
        case "started":
            reporter.started(*arguments)
        case "progress":
            reporter.progress(*arguments)
        case "tell":
            reporter.tell(*arguments)
        case "note":
            reporter.note(*arguments)
        case "warning":
            reporter.warning(*arguments)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A cluster while the block runs; what runs for it then is stopped at the block's end.

    Args:
        address: of the scheduler, `tcp://HOST:PORT`.

    Raises:
        ToolError: Dask distributed is not installed.
        ClusterError: no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ToolError(
            "--scheduler needs Dask distributed, which is not installed",
            hint="pip install 'fastvlm-compile[dask]'",
        ) from None
    # Its own words about lost connections come on top of ours, with tracebacks.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_PATIENCE_S / 3, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"{address}: no scheduler answers here: {error}",
            hint="start one with `dask scheduler`, and give the address that it tells",
        ) from None
    cluster = Cluster(client, address)
    try:
        yield cluster
    finally:
        cluster.closing.set()
        client.close()


def _explained(error: BaseException, task: str) -> BaseException:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        stage = task.rpartition("-")[0].rpartition("-")[0]
        return StageError(
            f"the stage {stage} was given up: {error.allowed_failures + 1} workers died while "
            "they ran it",
            hint="most often memory ran out: start workers that declare no more than there is",
        )
    return error
