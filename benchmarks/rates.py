"""Fits the rates of `plan`'s estimates to what stores and benchmarks recorded.

    python -m benchmarks.rates recipes/0.5b.yaml=.store recipes/tiny.yaml=benchmarks/build_tiny.json

An argument is RECIPE=SOURCE: a store of `fastvlm-compile build`, of which the latest build of the
recipe counts, or the JSON of `python -m benchmarks` or of `python -m benchmarks.scale`, in which
the recipe is whole or in parts; of a crowded machine the times do not count. What they say replaces
what `recorded_outcomes.json` has of the same stages; then all of that file is fitted, and
`fastvlm_compile/estimate/rates.json` is written. A machine that others use, too, is slower on one
day than on another in everything that it does, so each recipe has a pace of its own in the fit, and
estimates of time are of the mean one. `benchmarks/rates.md` has what was recorded beside estimates:
by these rates, and by such as know the other recipes alone.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls  # type: ignore[import-untyped]

from benchmarks import page
from benchmarks.rates_page import Beside, lines, markdown
from benchmarks.rates_table import MEMORY, TIME
from benchmarks.scale_report import Report
from benchmarks.watch import describe_machine
from fastvlm_compile.estimate.disk import disk_bytes
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.features import Features, features_of
from fastvlm_compile.estimate.job import Job
from fastvlm_compile.estimate.model import checkpoint_facts, synthetic_facts
from fastvlm_compile.estimate.outcomes import Off, outcome_of
from fastvlm_compile.estimate.rates import BASE, RATES_FILE, KindRates, Rates, cost
from fastvlm_compile.latest import load_record
from fastvlm_compile.plan import make_plan
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import EntryManifest
from fastvlm_compile.structure import from_plain, to_plain

ROOT = Path(__file__).parents[1]
RATES = ROOT / "fastvlm_compile" / "estimate" / RATES_FILE
PAGE = Path(__file__).with_name("rates.md")
RECORDED = Path(__file__).with_name("recorded_outcomes.json")
_GIGA = 1e9
_UNRECORDED_GB, _UNRECORDED_S = 0.3, 2.0
"""Base of a kind without outcomes: Python with PyTorch, and its start."""
_LEAST_S = 2.0
"""Times below count as this one when errors are weighed: the machine's own noise is as large."""
_LEAST_GB = 0.05
"""No stage has less memory; one of a tenth of a second is over before the meter sees it all."""
NO_TIME_S = 0.0
"""In place of a time that does not count."""
_ROUNDS = 8
"""Of rates and paces in turn; after these neither changes any more."""
_BELIEF = 0.05
"""Weight of a prior beside one outcome: a rate that is off by all of itself counts as an estimate
that is off by a twentieth."""

Recorded = Mapping[str, Mapping[str, Estimate]]
"""Recipe (its file's name) -> stage -> what it took."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stage of a recipe, what its cost follows from, and its cost."""

    recipe: str
    stage: str
    kind: str
    features: Features
    disk_bytes: float
    took: Estimate

    @property
    def timed(self) -> bool:
        """Whether its time counts."""
        return self.took.time_s != NO_TIME_S

    def at_mean_pace(self, pace: float) -> "Row":
        """As it would have been on a day when the machine was neither slow nor fast."""
        return replace(self, took=replace(self.took, time_s=self.took.time_s / pace))


def main() -> None:
    """Parse, gather, fit, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", metavar="RECIPE=SOURCE")
    arguments = parser.parse_args()
    recorded = {name: dict(stages) for name, stages in load_recorded().items()}
    for text in arguments.sources:
        recipe, _, source = text.partition("=")
        own = recorded.setdefault(Path(recipe).name, {})
        own |= read_source(load_recipe(Path(recipe)).name, Path(source))
    rows = [row for recipe, stages in recorded.items() for row in rows_of(recipe, stages)]
    rates = fitted_at_paces(rows)
    kept = {recipe: {r.stage: r.took for r in rows if r.recipe == recipe} for recipe in recorded}
    write(RECORDED, kept)
    write(RATES, rates)
    found = beside(rows, rates)
    print("\n".join(lines(found)))
    page.write(PAGE, markdown(found, list(left_out(rows))))


def load_recorded() -> Recorded:
    """What earlier runs gathered."""
    if not RECORDED.is_file():
        return {}
    found = json.loads(RECORDED.read_bytes())
    return {
        recipe: {stage: from_plain(took, Estimate) for stage, took in stages.items()}
        for recipe, stages in found.items()
    }


def write(path: Path, value: object) -> None:
    """As JSON."""
    path.write_text(json.dumps(to_plain(value), indent=1) + "\n", encoding="utf-8")


def rows_of(recipe_name: str, took: Mapping[str, Estimate]) -> Iterator[Row]:
    """The recorded stages that the recipe still has."""
    recipe = load_recipe(ROOT / "recipes" / recipe_name)
    weights, synthetic = recipe.checkpoint.path, recipe.checkpoint.synthetic
    if weights is None:
        assert synthetic is not None, f"{recipe_name} names no weights that are here"
        facts = synthetic_facts(synthetic)
    else:
        facts = checkpoint_facts(weights)
    plan = make_plan(recipe, weights=weights)
    stages = {stage.name: stage for stage in plan.stages}
    written: dict[str, float] = {}
    for stage in plan.stages:
        job = Job(stage=stage, stages=stages, recipe=recipe, facts=facts)
        written[stage.name] = disk_bytes(job)
        features = features_of(job, written)
        if stage.name in took:
            yield Row(
                recipe=recipe_name,
                stage=stage.name,
                kind=job.kind,
                features=features,
                disk_bytes=written[stage.name],
                took=took[stage.name],
            )


def read_source(recipe: str, source: Path) -> dict[str, Estimate]:
    """What a store or a benchmark's file says of the stages of a recipe."""
    if source.is_file():
        data = json.loads(source.read_bytes())
        if "recipes" in data:
            return {
                each.stage: replace(each.took, time_s=NO_TIME_S) if figures.crowded else each.took
                for figures in from_plain(data, Report).recipes.values()
                if recipe in (figures.recipe, figures.part_of)
                for each in figures.stages
                if not each.resumed
            }
        return {
            row["stage"]: Estimate(
                memory_bytes=row["peak_memory_bytes"],
                disk_bytes=row["size_bytes"],
                time_s=row["duration_s"],
            )
            for row in data["stages"]
        }
    store = Store(root=source)
    found = {}
    for name, ingredients in load_record(store, recipe).stages.items():
        manifest = store.manifest(ingredients.key)
        if isinstance(manifest, EntryManifest) and not manifest.resumed:  # else: of a part of it
            found[name] = outcome_of(manifest)
    return found


def fitted_at_paces(rows: Sequence[Row]) -> Rates:
    """Rates of the mean pace: they and the paces of the recipes follow from each other."""
    paces = {row.recipe: 1.0 for row in rows}
    for _ in range(_ROUNDS):
        rates = fitted([row.at_mean_pace(paces[row.recipe]) for row in rows])
        paces = paces_of(rows, rates)
        mean = statistics.geometric_mean(paces.values())
        paces = {recipe: pace / mean for recipe, pace in paces.items()}
    return rates


def paces_of(rows: Sequence[Row], rates: Rates) -> dict[str, float]:
    """The pace of each recipe."""
    return {
        recipe: pace_of([row for row in rows if row.recipe == recipe], rates)
        for recipe in dict.fromkeys(row.recipe for row in rows)
    }


def pace_of(rows: Sequence[Row], rates: Rates) -> float:
    """How many times as long as estimated the stages of a recipe took, by the median of those that
    took long enough to tell; 1 without any."""
    return statistics.median(
        [
            row.took.time_s / foretold(row, rates).time_s
            for row in rows
            if row.timed and row.took.time_s > Off.TIME_S.value
        ]
        or [1.0]
    )


def fitted(rows: Sequence[Row]) -> Rates:
    """Rates by least squares of relative errors, none below zero; priors where nothing is known."""
    kinds = {
        kind: KindRates(
            memory_gb={BASE: _UNRECORDED_GB, **MEMORY[kind]},
            time_s={BASE: _UNRECORDED_S, **TIME[kind]},
            recorded=0,
        )
        for kind in MEMORY
    }
    for kind in {row.kind for row in rows}:
        own = [row for row in rows if row.kind == kind]
        timed = [row for row in own if row.timed]
        kinds[kind] = KindRates(
            memory_gb=_fit(
                own,
                MEMORY[kind],
                [max(r.took.memory_bytes / _GIGA, _LEAST_GB) for r in own],
                _LEAST_GB,
            ),
            time_s=_fit(timed, TIME[kind], [r.took.time_s for r in timed], _LEAST_S)
            if timed
            else kinds[kind].time_s,
            recorded=len(own),
        )
    machine = describe_machine(("torch", "onnxruntime", "coremltools"))
    return Rates(machine=page.listed(machine), kinds=dict(sorted(kinds.items())))


def _fit(
    own: Sequence[Row], priors: Mapping[str, float], values: Sequence[float], least: float
) -> Mapping[str, float]:
    """Base and rates. Outcomes of small models say nothing of what grows with the model; the prior
    of such a rate then stands."""
    rows = np.array([[1.0, *(getattr(r.features, name) for name in priors)] for r in own])
    weights = 1 / np.maximum(np.array(values), max(least, 1e-9))
    beliefs = np.diag([_BELIEF / prior for prior in priors.values()])
    beliefs = np.hstack([np.zeros((len(priors), 1)), beliefs])
    left = np.vstack([rows * weights[:, None], beliefs])
    right = np.concatenate([np.array(values) * weights, np.full(len(priors), _BELIEF)])
    found, _ = nnls(left, right)
    pairs = zip((BASE, *priors), found, strict=True)
    return {name: float(f"{rate:.4g}") for name, rate in pairs if rate > 0}


def foretold(row: Row, rates: Rates) -> Estimate:
    """The estimate of a recorded stage."""
    kind = rates.kinds[row.kind]
    return Estimate(
        memory_bytes=round(_GIGA * cost(kind.memory_gb, row.features)),
        disk_bytes=round(row.disk_bytes),
        time_s=cost(kind.time_s, row.features),
    )


def beside(rows: Sequence[Row], rates: Rates) -> list[Beside]:
    """Each outcome with its estimate."""
    paces = paces_of(rows, rates)
    found = []
    for row in rows:
        thought, pace = foretold(row, rates), paces[row.recipe]
        found.append(
            Beside(
                recipe=row.recipe,
                stage=row.stage,
                estimate=replace(thought, time_s=thought.time_s * pace),
                took=row.took,
                timed=row.timed,
                pace=pace,
            )
        )
    return found


def left_out(rows: Sequence[Row]) -> Iterator[Beside]:
    """Each outcome with its estimate by rates that know the other recipes alone."""
    for recipe in dict.fromkeys(row.recipe for row in rows):
        others = fitted_at_paces([row for row in rows if row.recipe != recipe])
        yield from beside([row for row in rows if row.recipe == recipe], others)


if __name__ == "__main__":
    main()
