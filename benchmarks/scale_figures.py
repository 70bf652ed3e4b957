"""What a build of a recipe took, read from its store and its bundle."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.watch import describe_machine
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.outcomes import StageOutcome, load_outcomes, outcome_of
from fastvlm_compile.latest import load_record
from fastvlm_compile.store import Store
from fastvlm_compile.store_care import inventory
from fastvlm_compile.store_entry import EntryManifest
from reference.errors import UserError
from validation.parity_file import read_parity

LIBRARIES = ("torch", "numpy", "onnxruntime", "coremltools", "mlx")
SYNTHESIZED = "weights"
"""The stage that makes a checkpoint up; nobody who has one waits for it."""
CROWDED_LOAD = 1.25
"""Above this load per core something ran beside a build, which by itself has about one."""


class FiguresError(UserError):
    """A store does not hold a build of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """A whole build as it was metered from outside, the builder's own process included."""

    wall_s: float
    peak_bytes: int

    @classmethod
    def together(cls, runs: Iterable["Took | None"]) -> "Took | None":
        """Of runs one after the other; None where one is not known, or there was none."""
        every = list(runs)
        known = [each for each in every if each is not None]
        if not known or len(known) < len(every):
            return None
        return cls(
            wall_s=sum(each.wall_s for each in known),
            peak_bytes=max(each.peak_bytes for each in known),
        )


@dataclass(frozen=True, kw_only=True)
class StageFigures:
    """One stage.

    Attributes:
        stage: its name.
        took: as the store recorded it.
        estimate: from before the build; None where the store has none.
        resumed: whether `took` is of the last go alone.
    """

    stage: str
    took: Estimate
    estimate: Estimate | None
    resumed: bool = False

    @property
    def off(self) -> tuple[str, ...]:
        """What the estimate was off by more than a quarter in: `memory`, `disk`, `time`."""
        if self.estimate is None or self.resumed:
            return ()
        return StageOutcome(key="", estimate=self.estimate, outcome=self.took).off


@dataclass(frozen=True, kw_only=True)
class VariantFigures:
    """One variant of the bundle."""

    target: str
    variant: str
    bits_per_weight: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class RecipeFigures:
    """A build.

    Attributes:
        recipe: its name.
        stages: in the order in which they were finished; those of other parts, too, that this one
            had no need to build again.
        whole: None where it was not watched from its start to its end.
        gates: how many have each status.
        bundle_bytes: 0 without a bundle, as when a gate failed.
        variants: of the bundle.
        log: name of the file beside the page; empty without one.
        part_of: name of the recipe that this is a part of; empty where it is a whole one.
        machine: where the figures were read.
        load_15_minutes: of the machine then.
    """

    recipe: str
    stages: tuple[StageFigures, ...]
    whole: Took | None = None
    gates: Mapping[str, int]
    bundle_bytes: int
    variants: tuple[VariantFigures, ...] = ()
    log: str = ""
    part_of: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    load_15_minutes: float = 0.0

    @property
    def crowded(self) -> bool:
        """Whether more ran than the cores bear, so that the times are not those of the build."""
        return self.load_15_minutes > CROWDED_LOAD * int(self.machine["cores"])

    @property
    def time_s(self) -> float:
        """Of the whole build; of its stages, where that is not known."""
        return self.whole.wall_s if self.whole else sum(each.took.time_s for each in self.stages)

    @property
    def synthesizing_s(self) -> float:
        """What of it made the checkpoint up."""
        return sum(each.took.time_s for each in self.stages if each.stage == SYNTHESIZED)

    @property
    def peak_bytes(self) -> int:
        """Of the whole build; of its largest stage, where that is not known."""
        largest = max(each.took.memory_bytes for each in self.stages)
        return max(self.whole.peak_bytes, largest) if self.whole else largest


def read_figures(
    recipe: str,
    store: Store,
    bundle: Path,
    *,
    whole: Took | None,
    estimates: Mapping[str, Estimate],
    log: str = "",
    part_of: str = "",
) -> RecipeFigures:
    """The figures of the latest build of a recipe.

    Args:
        recipe: its name.
        store: that it was built in; every stage must be there.
        bundle: its folder; none is there when a gate failed.
        whole: what was seen from outside.
        estimates: from before the build, by stage, for stages whose estimate the store lacks: it
            loses those of a build that was killed.
        log: name of the log that is kept.
        part_of: name of the recipe that this is a part of.

    Raises:
        FiguresError: the recipe was not built in this store to its end.
        BundleError, StoreError, UserError: a file of either is damaged.
    """
    record, outcomes = load_record(store, recipe), load_outcomes(store, recipe)
    finished = {entry.key: entry.finished_s for entry in inventory(store)}
    stages = []
    by_time = sorted(record.stages.items(), key=lambda item: finished.get(item[1].key, 0.0))
    for name, ingredients in by_time:
        manifest = store.manifest(ingredients.key)
        if not isinstance(manifest, EntryManifest):
            raise _unbuilt(recipe, store, f"its stage {name} is not there")
        known = outcomes.stages.get(name)
        stages.append(
            StageFigures(
                stage=name,
                took=outcome_of(manifest),
                estimate=known.estimate
                if known and known.key == ingredients.key
                else estimates.get(name),
                resumed=manifest.resumed,
            )
        )
    if not stages or not _gates_file(store, recipe).is_file():
        raise _unbuilt(recipe, store, "its gates were not judged")
    variants = read_manifest(bundle).variants if bundle.is_dir() else ()
    return RecipeFigures(
        recipe=recipe,
        stages=tuple(stages),
        whole=whole,
        gates=_count_gates(_gates_file(store, recipe)),
        bundle_bytes=sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
        variants=tuple(
            VariantFigures(
                target=each.target,
                variant=each.variant,
                bits_per_weight=each.bits_per_weight,
                size_bytes=each.size_bytes,
            )
            for each in variants
            if each.size_bytes  # the quantized references have no files
        ),
        log=log,
        part_of=part_of,
        machine=describe_machine(LIBRARIES),
        load_15_minutes=round(psutil.getloadavg()[2], 2),
    )


def _gates_file(store: Store, recipe: str) -> Path:
    """Where a store has the verdicts on a recipe's latest build."""
    return store.root / "reports" / recipe / "parity.json"


def _count_gates(file: Path) -> dict[str, int]:
    """How many have each status.

    Raises:
        UserError: the file is missing or damaged.
    """
    found = [row.status for row in read_parity(file).gates]
    return {status: found.count(status) for status in ("passed", "failed", "not run")}


def _unbuilt(recipe: str, store: Store, why: str) -> FiguresError:
    return FiguresError(
        f"{store.root}: no whole build of {recipe}: {why}",
        hint=f"`fastvlm-compile build` it with `--store {store.root}`",
    )
