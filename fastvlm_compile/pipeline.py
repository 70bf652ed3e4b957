"""What a build does, on one page.

    recipe --plan--> stages --key--> restore or run --> artifacts --judge--> gates --> bundle

Each stage is a function of its inputs, its config, our code and the versions of its tools; their
digest is the key of its output in the store. So a build that was killed goes on where it stopped,
with the next tensor, package or layer of the stage that ran if that works in pieces (`kept.py`), a
second build of the same recipe runs nothing, and a changed threshold only judges again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.bundle.annotations import manifest_as_built
from fastvlm_compile.bundle.assemble import assemble
from fastvlm_compile.bundle.licence import weights_licence
from fastvlm_compile.bundle_plan import bundle_key, plan_bundle
from fastvlm_compile.console import Reporter
from fastvlm_compile.estimate.forecast import Forecast
from fastvlm_compile.estimate.outcomes import outcomes_recorded
from fastvlm_compile.judging import Judgement, judge_gates, refuse_failures
from fastvlm_compile.plan import make_plan, parity_stages
from fastvlm_compile.publish import Publication, publish
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.report.sizes import measure_sizes
from fastvlm_compile.runner import Finished, Workshop, run_stages
from fastvlm_compile.store import Store


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build, from what, to where."""

    recipe: Recipe
    weights: Path | None
    """The checkpoint's folder; None for a recipe that synthesizes it."""
    store: Store
    out: Path
    """The bundle's folder: `dist/tiny`."""
    private_paths: tuple[Path, ...]
    """Folders of this machine that the bundle must not name, besides store and checkpoint."""
    replaced: bool = False
    """Whether `weights` are others than the recipe names."""
    base: Path | None = None
    """The checkpoint that `weights` belong on, where they are a LoRA fine-tune."""
    forecast: Forecast | None = None
    """What the stages are thought to take, to be recorded beside what they take."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """How a build ended that did not fail."""

    bundle: Path
    ending: Literal["published", "up to date"]
    judgement: Judgement


def build(
    request: BuildRequest,
    reporter: Reporter,
    run: Callable[[Workshop], Finished] = run_stages,
) -> BuildResult:
    """Build a recipe, judge it and publish its bundle.

    Args:
        request: what to build.
        reporter: told of every turn.
        run: makes every artifact of the plan be there: here, or on many machines.

    Raises:
        GateError: a gate failed; the report is written, the bundle is not.
        StageError: a stage failed, which is our mistake.
        UserError: any other mistake; every subclass says how to mend it.
    """
    recipe, store = request.recipe, request.store
    store.open()
    with store.in_use():
        plan = make_plan(recipe, weights=request.weights, base=request.base)
        random_weights = request.weights is None
        estimates = {} if request.forecast is None else request.forecast.stages
        with outcomes_recorded(store, recipe.name, estimates):
            finished = run(Workshop(plan=plan, store=store, reporter=reporter))
        judgement = judge_gates(
            recipe.gates,
            parity_stages(recipe),
            finished.artifacts,
            recipe=recipe.name,
            quantized=recipe.targets.quantized(),
            sizes=measure_sizes(recipe.targets, finished.artifacts),
            store=store,
            random_weights=random_weights,
        )
        refuse_failures(judgement)
        licence = weights_licence(recipe, synthetic=random_weights, replaced=request.replaced)
        key = bundle_key(recipe, finished, judgement, licence=licence)

        def put_in_place() -> None:
            private = private_paths(request)
            bundle = plan_bundle(
                recipe, finished, judgement, licence=licence, private_paths=private
            )
            assemble(bundle, request.out, disk=store.disk)

        publication = Publication(
            recipe=recipe.name, folder=request.out, key=key, as_built=manifest_as_built
        )
        ending = publish(publication, put_in_place, store)
    return BuildResult(bundle=request.out, ending=ending, judgement=judgement)


def private_paths(request: BuildRequest) -> tuple[Path, ...]:
    """Folders that no file of the bundle may name."""
    sources = [path for path in (request.weights, request.base) if path is not None]
    return (*request.private_paths, request.store.root, *sources)
