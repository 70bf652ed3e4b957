"""Estimates kept from before a build, and what its stages then took."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import RecipeError, StoreError
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.latest import load_record
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import EntryManifest
from fastvlm_compile.structure import from_plain, to_plain

_TOLERANCE = 0.25
_FILE = "estimates.json"


class Off(Enum):
    """Below which difference an estimate is never off: nobody would act on it."""

    MEMORY_BYTES = 50e6
    DISK_BYTES = 1e6
    TIME_S = 5.0


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """One stage that was built: what it was thought to take, and what it took.

    Attributes:
        key: of its entry in the store.
        estimate: made before the build started.
        outcome: as the store recorded it.
    """

    key: str
    estimate: Estimate
    outcome: Estimate

    @property
    def off(self) -> tuple[str, ...]:
        """What was off by more than a quarter: `memory`, `disk`, `time`."""
        thought, took = self.estimate, self.outcome
        pairs = {
            "memory": (thought.memory_bytes, took.memory_bytes, Off.MEMORY_BYTES),
            "disk": (thought.disk_bytes, took.disk_bytes, Off.DISK_BYTES),
            "time": (thought.time_s, took.time_s, Off.TIME_S),
        }
        return tuple(name for name, pair in pairs.items() if is_off(*pair))


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Of one recipe, each stage as it was last built.

    Attributes:
        stages: by name.
    """

    stages: Mapping[str, StageOutcome] = field(default_factory=dict)


def is_off(estimate: float, outcome: float, least: Off) -> bool:
    """Whether an estimate is off by more than a quarter of the outcome, and by enough to matter."""
    difference = abs(estimate - outcome)
    return not (difference <= _TOLERANCE * outcome or difference <= least.value)


@contextlib.contextmanager
def outcomes_recorded(
    store: Store, recipe: str, estimates: Mapping[str, Estimate]
) -> Iterator[None]:
    """Record, for each stage that a build in this context builds, estimate and outcome.

    A build that fails has built stages, too. What was restored from the store keeps the estimate
    of the build that made it.

    Raises:
        StoreError: the disk is full or read-only, or what is recorded is damaged.
    """
    before = load_record(store, recipe).entry_keys()
    try:
        yield
    finally:
        record = load_record(store, recipe)
        known = load_outcomes(store, recipe)
        found = {name: row for name, row in known.stages.items() if name in record.stages}
        for name, ingredients in record.stages.items():
            manifest = store.manifest(ingredients.key)
            is_new = not record.restored.get(name, True) and ingredients.key not in before
            if not (is_new and name in estimates and isinstance(manifest, EntryManifest)):
                continue
            if not manifest.resumed:  # what the rest took is no measure of the whole
                found[name] = StageOutcome(
                    key=ingredients.key, estimate=estimates[name], outcome=outcome_of(manifest)
                )
        if found != known.stages:
            _save(store, recipe, Outcomes(stages=found))


def load_outcomes(store: Store, recipe: str) -> Outcomes:
    """What was recorded of a recipe; nothing where it was never built.

    Raises:
        StoreError: it is damaged.
    """
    path = _path(store, recipe)
    try:
        return from_plain(json.loads(path.read_bytes()), Outcomes)
    except FileNotFoundError:
        return Outcomes()
    except (OSError, ValueError, RecipeError) as error:
        raise StoreError(
            f"{path}: these estimates and outcomes are damaged: {error}",
            hint="remove the file; the next build records them again",
        ) from error


def _save(store: Store, recipe: str, outcomes: Outcomes) -> None:
    path = _path(store, recipe)
    data = json.dumps(to_plain(outcomes), indent=1, sort_keys=True).encode() + b"\n"
    with refusals(StoreError, store.root):
        store.disk.make_folder(path.parent)
        store.disk.write(path, data)


def outcome_of(manifest: EntryManifest) -> Estimate:
    """What the store recorded of a stage."""
    return Estimate(
        memory_bytes=manifest.peak_memory_bytes,
        disk_bytes=sum(file.size_bytes for file in manifest.files),
        time_s=manifest.duration_s,
    )


def _path(store: Store, recipe: str) -> Path:
    return store.root / "reports" / recipe / _FILE
