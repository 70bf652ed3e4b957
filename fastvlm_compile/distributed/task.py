"""One stage as a task: a worker does what a local build does, after it has proved the key."""

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_compile.code_digest import CodeReader
from fastvlm_compile.console import Reporter
from fastvlm_compile.distributed.cores import use_all_cores
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.telling import StoppedError, Telling
from fastvlm_compile.errors import CheckpointMissingError, ClusterError, StoreError
from fastvlm_compile.key import Ingredients, canonical_json, differences
from fastvlm_compile.runner import Workshop, obtain
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Entry, EntryManifest
from fastvlm_compile.tree_digest import FileRecord
from fastvlm_compile.verdict import Artifact, Inspector, read_source
from reference.errors import UserError

if TYPE_CHECKING:
    from distributed import Worker


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a stage reads, as any machine can find it."""

    digest: str
    key: str = ""
    """Of the entry; empty for a source."""
    files: tuple[FileRecord, ...] = ()
    """Of a source that is kept in the store; none where every machine has it at its path."""


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """One stage to run, and what it should be made of."""

    name: str
    """The task's name, unique for the stage's key and the store."""
    plan: Plan
    stage: str
    ingredients: Ingredients
    """As the build that asks has gathered them."""
    inputs: Mapping[str, Input]
    """By the name of the source or stage."""
    store: StoreLocation


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """How a task ended."""

    kind: Literal["done", "failed", "stopped"]
    """`stopped`: nobody was waiting for it any more."""
    worker: str
    digest: str = ""
    manifest: EntryManifest | None = None
    restored: bool = False
    error: UserError | None = None


def protocol() -> str:
    """The digest of our code that a task runs in; the stage's own code is in its key."""
    return hashlib.sha256(canonical_json(dict(CodeReader().digests(__name__)))).hexdigest()


def run_task(payload: bytes, expected: str) -> TaskOutcome:
    """Run a pickled `StageTask` in the Dask worker that calls this.

    Args:
        payload: made by the build, whose `protocol()` is `expected`: other code may not even be
            able to read it.
        expected: see there.
    """
    from distributed import get_worker

    worker = get_worker()
    try:
        if protocol() != expected:
            raise other_code(worker.address, "the code that runs stages differs")
        task = pickle.loads(payload)
        assert isinstance(task, StageTask)
        use_all_cores()
        store = task.store.store(local_store(worker, task.store))
        store.open()
        with store.in_use():
            entry, restored = perform(task, store, Telling(worker, task.name), worker.address)
    except StoppedError:
        return TaskOutcome(kind="stopped", worker=worker.address)
    except UserError as error:
        return TaskOutcome(kind="failed", worker=worker.address, error=error)
    return TaskOutcome(
        kind="done",
        worker=worker.address,
        digest=entry.digest,
        manifest=entry.manifest,
        restored=restored,
    )


def perform(task: StageTask, store: Store, reporter: Reporter, worker: str) -> tuple[Entry, bool]:
    """Check everything that the task says against what is here, then do as a local build does.

    Raises:
        ClusterError: this worker would file the output under another key.
        StoreError: an input is not in the store as this machine sees it.
        UserError: as `runner.run_stages`.
    """
    stage = next(each for each in task.plan.stages if each.name == task.stage)
    plan = _with_sources_of_here(task, store, worker)
    artifacts = {name: _artifact(name, task, plan, store, worker) for name in stage.inputs.values()}
    ingredients = Inspector(plan).ingredients(stage, artifacts)
    if ingredients != task.ingredients:
        raise other_code(worker, _why(task, ingredients, stage))
    workshop = Workshop(plan=plan, store=store, reporter=reporter)
    return obtain(workshop, stage, ingredients, artifacts)


def other_code(worker: str, why: str) -> ClusterError:
    """The refusal of a worker that would compute another key."""
    return ClusterError(
        f"the worker {worker} is not of this version and was refused: {why}",
        hint="install the same fastvlm-compile and the same tools there, and start it again",
    )


def local_store(worker: "Worker", location: StoreLocation) -> Path:
    """Where the workers of one machine keep what they bring from a store at a URL.

    Beside the folders that Dask makes for each worker and removes at its end.
    """
    return Path(worker.local_directory).parent / f"fastvlm-store-{location.short_digest}"


def _with_sources_of_here(task: StageTask, store: Store, worker: str) -> Plan:
    """The plan with each source where this machine has it."""
    sources = tuple(
        _source_of_here(source, task.inputs[source.name], store, worker)
        if source.name in task.inputs
        else source
        for source in task.plan.sources
    )
    return dataclasses.replace(task.plan, sources=sources)


def _source_of_here(source: Source, given: Input, store: Store, worker: str) -> Source:
    if given.files:
        from fastvlm_compile.distributed.mirror import Mirror

        assert isinstance(store, Mirror)
        return Source(name=source.name, path=store.source(given.files))
    if not source.path.is_dir():
        raise CheckpointMissingError(
            f"{source.path}: the worker {worker} has not this folder",
            hint="put the checkpoint where all machines see it at the same path, or give "
            "`--store` a URL: checkpoints are then sent through the store",
        )
    return source


def _artifact(name: str, task: StageTask, plan: Plan, store: Store, worker: str) -> Artifact:
    given = task.inputs[name]
    if not given.key:
        (source,) = (source for source in plan.sources if source.name == name)
        return Artifact(folder=source.path, digest=read_source(source, store).digest)
    found = store.look(given.key)
    if isinstance(found, Entry) and found.digest == given.digest:
        store.remember(found)
        return Artifact(folder=found.output, digest=found.digest)
    problem = "it is not there" if found is None or isinstance(found, Entry) else found.problem
    raise StoreError(
        f"{task.store.shown}: the worker {worker} cannot use the result of the stage {name}: "
        f"{problem}",
        hint="build again: what is damaged or missing is built anew",
    )


def _why(task: StageTask, ingredients: Ingredients, stage: Stage) -> str:
    found = differences(task.ingredients, ingredients, stage=stage, recipe_keys={})
    return f"{stage.name}: {'; '.join(found)}"
