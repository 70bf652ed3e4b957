"""A recipe's stages on a cluster: each is submitted when its inputs are there.

Keys of later stages are made of the digests of earlier outputs, so a stage's task has a name only
then. What the store has already needs no task.
"""

import dataclasses
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastvlm_compile.console import Reporter, format_bytes
from fastvlm_compile.distributed.cluster import Cluster, Ended
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.mirror import Mirror
from fastvlm_compile.distributed.task import Input, StageTask, TaskOutcome
from fastvlm_compile.errors import ClusterError, StoreError
from fastvlm_compile.key import Ingredients
from fastvlm_compile.latest import BuildRecord, load_record, save_record
from fastvlm_compile.runner import Finished, Workshop, outcome_line, read_sources
from fastvlm_compile.stage import Source, Stage
from fastvlm_compile.store_entry import Entry
from fastvlm_compile.verdict import Artifact, Inspector, verdicts
from reference.errors import UserError

UNKNOWN_BYTES = 2 << 30
"""Memory of a stage of which nothing is known."""
_TICK_S = 0.5
_PATIENCE_S = 60.0
"""A network's file system may show a new folder as late as this (nfs(5), acdirmax)."""
_MAX_STOPS = 3


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that was submitted."""

    stage: Stage
    ingredients: Ingredients
    memory_bytes: int
    reporter: Reporter
    stops: int = 0
    """How often its task was given up by another build that had asked for it too."""


@dataclass(kw_only=True)
class Coordinator:
    """One build on a cluster."""

    cluster: Cluster
    workshop: Workshop
    location: StoreLocation
    memory_bytes: Mapping[str, int]
    """Estimates by stage; a peak that the store remembers comes first."""
    inspector: Inspector
    record: BuildRecord
    inputs: dict[str, Input] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    """By the task's name."""
    futures: dict[str, object] = field(default_factory=dict)
    """Held as long as we wait for them: what nobody holds is stopped."""
    ended: "queue.SimpleQueue[Ended]" = field(default_factory=queue.SimpleQueue)
    failure: BaseException | None = None

    def run(self) -> Finished:
        """As `runner.run_stages`.

        A failure lets what runs finish, for its results are kept, and submits nothing more.
        """
        plan, store = self.workshop.plan, self.workshop.store
        self._refuse_too_large()
        store.sweep()
        self._offer_sources()
        waiting = list(plan.stages)
        while waiting or self.running:
            waiting = self._submit_ready(waiting)
            if self.running:
                self._handle(self._next_ended())
            elif self.failure is not None:
                break
        if self.failure is not None:
            raise self.failure
        self._bring_all()
        self.record = self.record.only([stage.name for stage in plan.stages])
        save_record(store, plan.recipe, self.record)
        return Finished(artifacts=self.artifacts, ingredients=tuple(self.record.stages.values()))

    def _refuse_too_large(self) -> None:
        """Before anything starts; what the store has already needs no worker."""
        largest = self.cluster.largest_memory()
        plan, store = self.workshop.plan, self.workshop.store
        needs = {stage.name: self._memory(stage.name) for stage in plan.stages}
        if largest == 0 or max(needs.values()) <= largest:  # without any worker the build waits
            return
        for verdict in verdicts(plan, store, self.record):
            if verdict.entry is None and needs[verdict.stage] > largest:
                raise ClusterError(
                    f"the stage {verdict.stage} needs {format_bytes(needs[verdict.stage])} of "
                    f"memory, and the largest worker has {format_bytes(largest)}",
                    hint="start a larger worker, or leave out the variant that needs it",
                )

    def _offer_sources(self) -> None:
        store = self.workshop.store
        self.artifacts = read_sources(self.workshop)
        for source in self.workshop.plan.sources:
            digest = self.artifacts[source.name].digest
            if isinstance(store, Mirror):
                files = store.outside_tree(source.path, hidden=False).files
                store.offer(source.path, files)
                self.inputs[source.name] = Input(digest=digest, files=files)
            else:
                self.inputs[source.name] = Input(digest=digest)

    def _submit_ready(self, waiting: list[Stage]) -> list[Stage]:
        """Submit or restore every stage whose inputs are there; the others are returned.

        The plan's order makes one pass enough: a stage that is restored readies those after it.
        """
        still_waiting = []
        for stage in waiting:
            if self.failure is not None or set(stage.inputs.values()) - set(self.artifacts):
                still_waiting.append(stage)
                continue
            try:
                self._submit_or_restore(stage)
            except UserError as error:
                self._fail(stage, error, self.workshop.reporter)
        return still_waiting

    def _submit_or_restore(self, stage: Stage) -> None:
        ingredients = self.inspector.ingredients(stage, self.artifacts)
        found = self.workshop.store.find(ingredients.key)
        if isinstance(found, Entry):
            self._file(stage, ingredients, found, restored=True)
            self.workshop.reporter.tell(stage.name, "hit")
        else:
            if stage.resumable:
                self.record = self.record.with_begun(ingredients)
                save_record(self.workshop.store, self.workshop.plan.recipe, self.record)
            reporter = self.workshop.reporter.beside()
            self._submit(
                Running(
                    stage=stage,
                    ingredients=ingredients,
                    memory_bytes=self._memory(stage.name),
                    reporter=reporter,
                )
            )

    def _submit(self, running: Running) -> None:
        stage, ingredients = running.stage, running.ingredients
        plan = self.workshop.plan
        sources = tuple(
            Source(name=source.name, path=source.path.resolve()) for source in plan.sources
        )
        task = StageTask(
            name=f"{stage.name}-{ingredients.key}-{self.location.short_digest}",
            plan=dataclasses.replace(plan, sources=sources),
            stage=stage.name,
            ingredients=ingredients,
            inputs={name: self.inputs[name] for name in stage.inputs.values()},
            store=self.location,
        )
        self.futures[task.name] = self.cluster.submit(
            task,
            memory_bytes=running.memory_bytes,
            reporter=running.reporter,
            on_end=self.ended.put,
        )
        self.running[task.name] = running

    def _memory(self, stage: str) -> int:
        """The peak of the last time, if the store has it; else the estimate."""
        before = self.record.stages.get(stage)
        if before is not None:
            found = self.workshop.store.find(before.key)
            if isinstance(found, Entry):
                return found.manifest.peak_memory_bytes
        return self.memory_bytes.get(stage, UNKNOWN_BYTES)

    def _next_ended(self) -> Ended:
        warned = False
        needed = max(running.memory_bytes for running in self.running.values())
        while True:
            try:
                return self.ended.get(timeout=_TICK_S)
            except queue.Empty:
                if self.cluster.closing.is_set():
                    raise ClusterError("the build was interrupted") from None
            if not warned and self.cluster.largest_memory() < needed:
                warned = True
                self.workshop.reporter.warning(
                    f"no worker with {format_bytes(needed)} of memory is connected any more; the "
                    "build waits for one"
                )

    def _handle(self, ended: Ended) -> None:
        running = self.running.pop(ended.task)
        del self.futures[ended.task]
        stage, reporter = running.stage, running.reporter
        try:
            outcome = self.cluster.outcome(ended, reporter)
            if outcome.error is not None:
                raise outcome.error
            if outcome.kind == "stopped":
                self._submit_again(running)
                return
            entry = self._arrived(stage, running.ingredients.key, outcome)
            self._file(stage, running.ingredients, entry, restored=outcome.restored)
        except UserError as error:
            self._fail(stage, error, reporter)
            return
        line = outcome_line(entry.manifest, restored=outcome.restored)
        reporter.tell(stage.name, f"{line}, on {outcome.worker}")

    def _submit_again(self, running: Running) -> None:
        """The task was another build's as well, which gave it up when this one had just come."""
        if running.stops >= _MAX_STOPS:
            raise ClusterError(f"the stage {running.stage.name} was stopped again and again")
        self._submit(dataclasses.replace(running, stops=running.stops + 1))

    def _arrived(self, stage: Stage, key: str, outcome: TaskOutcome) -> Entry:
        """The entry as this machine sees it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        store = self.workshop.store
        while True:
            found = store.find(key)
            if isinstance(found, Entry) and found.digest == outcome.digest:
                return found
            if time.monotonic() > deadline_s:
                raise StoreError(
                    f"{self.location.shown}: the worker {outcome.worker} built the stage "
                    f"{stage.name}, and its result does not arrive in the store as seen from here",
                    hint="`--store` must be one folder that all machines share, or a URL",
                )
            time.sleep(_TICK_S)

    def _file(
        self, stage: Stage, ingredients: Ingredients, entry: Entry, *, restored: bool
    ) -> None:
        self.artifacts[stage.name] = Artifact(folder=entry.output, digest=entry.digest)
        self.inputs[stage.name] = Input(digest=entry.digest, key=entry.key)
        self.record = self.record.with_stage(ingredients, restored=restored)
        save_record(self.workshop.store, self.workshop.plan.recipe, self.record)

    def _fail(self, stage: Stage, error: UserError, reporter: Reporter) -> None:
        reporter.tell(stage.name, "failed")
        self.failure = self.failure or error

    def _bring_all(self) -> None:
        """Have every result on this machine, where the bundle is put together."""
        store = self.workshop.store
        for stage in self.workshop.plan.stages:
            found = store.look(self.inputs[stage.name].key)
            if not isinstance(found, Entry):
                raise StoreError(
                    f"{self.location.shown}: the result of the stage {stage.name} was damaged",
                    hint="build again: what is damaged is built anew",
                )
            store.remember(found)


def run_on(
    cluster: Cluster,
    workshop: Workshop,
    *,
    location: StoreLocation,
    memory_bytes: Mapping[str, int],
) -> Finished:
    """Make every artifact of a plan be there, built by the workers of a cluster.

    Args:
        cluster: whose workers were greeted for this plan.
        workshop: the plan, the store as this machine sees it, who is told.
        location: where the store is for the workers.
        memory_bytes: estimates by stage, for those that the store remembers nothing of.

    Raises:
        UserError, StageError: as `runner.run_stages`; ClusterError as well.
    """
    return Coordinator(
        cluster=cluster,
        workshop=workshop,
        location=location,
        memory_bytes=memory_bytes,
        inspector=Inspector(workshop.plan),
        record=load_record(workshop.store, workshop.plan.recipe),
    ).run()
