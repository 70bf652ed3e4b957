"""Restore or run every stage of a plan: what is in the store is used, what is not is built."""

import contextlib
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.child import Outcome, run_child
from fastvlm_compile.console import Reporter, format_bytes, format_duration
from fastvlm_compile.durable import no_space, refusals
from fastvlm_compile.errors import ChangedError, StageError, StoreError
from fastvlm_compile.key import Ingredients
from fastvlm_compile.latest import load_record, save_record
from fastvlm_compile.stage import Plan, Stage
from fastvlm_compile.store import Store, folder_memo
from fastvlm_compile.store_entry import Entry, EntryManifest
from fastvlm_compile.verdict import Artifact, Inspector, read_source
from fastvlm_compile.worker import Message, Request
from reference.errors import UserError

_LOG_TAIL_LINES = 15
_FULL_BYTES = 1 << 20
"""A disk with less than this left has failed the stage, whatever its library made of that."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the stages of one build share."""

    plan: Plan
    store: Store
    reporter: Reporter


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A plan all of whose stages are there."""

    artifacts: Mapping[str, Artifact]
    """Sources and stages by name."""
    ingredients: tuple[Ingredients, ...]
    """Of each stage, in the plan's order."""


def run_stages(workshop: Workshop) -> Finished:
    """Make every artifact of a plan be there.

    Raises:
        UserError: a stage refused its input, a tool is missing, the disk is full, a source
            changed meanwhile.
        StageError: a stage failed.
    """
    plan, store = workshop.plan, workshop.store
    store.sweep()
    artifacts = read_sources(workshop)
    inspector = Inspector(plan)
    record = load_record(store, plan.recipe)
    for stage in plan.stages:
        ingredients = inspector.ingredients(stage, artifacts)
        if stage.resumable and not store.holds(ingredients.key):
            record = record.with_begun(ingredients)
            save_record(store, plan.recipe, record)  # gc must not take its pieces either
        with told_if_failed(workshop.reporter, stage.name):
            entry, restored = obtain(workshop, stage, ingredients, artifacts)
        workshop.reporter.tell(stage.name, outcome_line(entry.manifest, restored=restored))
        artifacts[stage.name] = Artifact(folder=entry.output, digest=entry.digest)
        record = record.with_stage(ingredients, restored=restored)
        save_record(store, plan.recipe, record)  # at once: gc must not take it from a resumed build
    record = record.only([stage.name for stage in plan.stages])
    save_record(store, plan.recipe, record)
    return Finished(artifacts=artifacts, ingredients=tuple(record.stages.values()))


def read_sources(workshop: Workshop) -> dict[str, Artifact]:
    """The plan's sources, by name.

    Raises:
        CheckpointMissingError: a file of one cannot be read.
    """
    artifacts = {}
    for source in workshop.plan.sources:
        tree = read_source(source, workshop.store)
        workshop.store.remember_memo(folder_memo(source.path), tree.memo)
        artifacts[source.name] = Artifact(folder=source.path, digest=tree.digest)
    return artifacts


def obtain(
    workshop: Workshop, stage: Stage, ingredients: Ingredients, inputs: Mapping[str, Artifact]
) -> tuple[Entry, bool]:
    """One stage's entry, from the store or built, and whether the store had it already.

    The same for every builder of a store, in this process or on another machine: the key's lock is
    held, the work is done aside by a child process, the entry appears whole.

    Args:
        workshop: its plan holds the stage.
        stage: what to run.
        ingredients: its, which make the key.
        inputs: at least the sources and stages that it reads from, by name.

    Raises:
        UserError, StageError: as `run_stages`.
    """
    store, reporter = workshop.store, workshop.reporter

    def tell_wait(holder: str) -> None:
        reporter.tell(stage.name, f"waits for {holder or 'another build'}")

    with store.building(ingredients.key, note=stage.name, on_wait=tell_wait) as lock:
        found = store.look(ingredients.key)
        if isinstance(found, Entry):
            store.remember(found)
            store.unfinished.drop(ingredients.key)  # a kill right after the commit left it
            return found, True
        if found is not None:
            reporter.warning(
                f"{stage.name}: the stored result is corrupt and is built again: {found.problem}"
            )
        reporter.started(stage.name)
        return _run(workshop, stage, ingredients, inputs, lock), False


def outcome_line(cost: EntryManifest, *, restored: bool) -> str:
    """`hit`, or `built in 4.2 s, peak 1.1 GB`, maybe `, resumed`."""
    if restored:
        return "hit"
    peak = format_bytes(cost.peak_memory_bytes)
    resumed = ", resumed" if cost.resumed else ""
    return f"built in {format_duration(cost.duration_s)}, peak {peak}{resumed}"


@contextlib.contextmanager
def told_if_failed(reporter: Reporter, stage: str) -> Iterator[None]:
    """Tell a line about the stage that ends in the block otherwise than well."""
    try:
        yield
    except KeyboardInterrupt:
        reporter.tell(stage, "interrupted")
        raise
    except UserError:
        reporter.tell(stage, "failed")
        raise


def _run(
    workshop: Workshop,
    stage: Stage,
    ingredients: Ingredients,
    inputs: Mapping[str, Artifact],
    lock: int,
) -> Entry:
    store, key = workshop.store, ingredients.key
    staging = store.stage_folder(key)
    kept = store.unfinished.begin(key, stage=stage.name) if stage.resumable else None
    resumed = stage.resumable and store.unfinished.holds(key)
    try:
        outcome = _run_child(workshop, stage, staging, inputs, lock=lock, kept=kept)
        _check_unchanged(workshop, stage, ingredients, inputs)
        return store.commit(
            staging,
            ingredients,
            duration_s=outcome.duration_s,
            peak_memory_bytes=outcome.peak_memory_bytes,
            resumed=resumed,
        )
    except ChangedError:
        store.unfinished.drop(key)  # as little of one state as the output
        raise
    finally:
        store.discard(staging)  # gone already when it became the entry


def _run_child(
    workshop: Workshop,
    stage: Stage,
    staging: Path,
    inputs: Mapping[str, Artifact],
    *,
    lock: int,
    kept: Path | None,
) -> Outcome:
    request = Request(
        function=stage.function,
        inputs={role: str(inputs[name].folder.resolve()) for role, name in stage.inputs.items()},
        out=str((staging / "output").resolve()),
        search_path=tuple(sys.path),
        kept="" if kept is None else str(kept.resolve()),
    )
    log = workshop.store.log_path(stage.name, staging.name)
    with refusals(StoreError, workshop.store.root):
        outcome = run_child(
            request, stage.config, log=log, lock=lock, progress=workshop.reporter.progress
        )
    message = outcome.message
    if message is not None and message.kind == "done" and outcome.exit_status == 0:
        return outcome
    if message is not None and message.kind == "user error":
        raise _user_error(message)
    if shutil.disk_usage(staging).free < _FULL_BYTES:
        raise no_space(StoreError, workshop.store.root)
    raise _stage_error(stage, outcome, log)


def _check_unchanged(
    workshop: Workshop, stage: Stage, ingredients: Ingredients, inputs: Mapping[str, Artifact]
) -> None:
    """An output is filed under what it was made of: it must not have changed under our hands."""
    changed = [
        source.name
        for source in workshop.plan.sources
        if source.name in stage.inputs.values()
        and read_source(source, workshop.store).digest != inputs[source.name].digest
    ]
    if Inspector(workshop.plan).ingredients(stage, inputs) != ingredients:
        changed.append("the code")
    if changed:
        raise ChangedError(
            f"{' and '.join(changed)} changed while the stage {stage.name} ran; its output is "
            "of neither state and was dropped",
            hint="build again, and leave the checkpoint and the code alone meanwhile",
        )


def _user_error(message: Message) -> UserError:
    """The child's error, as the same class where that is one of the project's."""
    module, _, name = message.error_class.partition(":")
    kind: object = UserError
    if module in ("reference.errors", "fastvlm_compile.errors"):
        kind = getattr(importlib.import_module(module), name, UserError)
    assert isinstance(kind, type)
    assert issubclass(kind, UserError)
    return kind(message.text, hint=message.hint)


def _stage_error(stage: Stage, outcome: Outcome, log: Path) -> StageError:
    hint = f"the whole log is {log}"
    if outcome.message is not None and outcome.message.text:
        what = outcome.message.text
    elif outcome.exit_status < 0:
        what = f"killed by {signal.Signals(-outcome.exit_status).name}"
        if outcome.exit_status == -signal.SIGKILL:
            what += ", which is how a system ends a process when memory runs out"
            hint = f"its peak was {format_bytes(outcome.peak_memory_bytes)}; {hint}"
    else:
        what = f"ended with exit status {outcome.exit_status} and no word"
    return StageError(f"the stage {stage.name} failed: {what}{_tail(log)}", hint=hint)


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines:
            shown = "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:])
            return f"{os.linesep}{shown}"
    return ""
