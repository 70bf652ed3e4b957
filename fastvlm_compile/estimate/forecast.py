"""What a build to come will take: its stages' estimates, and what of them is still to be built."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.estimate.estimate import Estimate, estimate_stages
from fastvlm_compile.estimate.model import ModelFacts, checkpoint_facts, synthetic_facts
from fastvlm_compile.estimate.rates import Rates, load_rates
from fastvlm_compile.plan import (
    GOLDEN,
    ONNX_GENAI,
    TORCH_WEIGHTS,
    coreml_parts,
    make_plan,
    onnx_graph_stages,
)
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.stage import Plan


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A recipe's plan with the estimate of every stage, hit or miss.

    Attributes:
        recipe: that was planned.
        weights, base: as `make_plan` takes them.
        plan: of the recipe.
        facts: of its checkpoint.
        stages: by name.
        bundle_bytes: of the bundle's folder.
    """

    recipe: Recipe
    weights: Path | None
    base: Path | None
    plan: Plan
    facts: ModelFacts
    stages: Mapping[str, Estimate]
    bundle_bytes: int

    def total(self, to_build: Collection[str]) -> "Total":
        """What building these stages takes; nothing where there are none."""
        found = {name: each for name, each in self.stages.items() if name in to_build}
        if not found:
            return Total(memory_bytes=0, largest="", disk_bytes=0, bundle_bytes=0, time_s=0.0)
        whole = Estimate.together(found.values())
        return Total(
            memory_bytes=whole.memory_bytes,
            largest=max(found, key=lambda name: found[name].memory_bytes),
            disk_bytes=whole.disk_bytes,
            bundle_bytes=self.bundle_bytes,
            time_s=whole.time_s,
        )


@dataclass(frozen=True, kw_only=True)
class Total:
    """Of several stages, one after the other.

    Attributes:
        memory_bytes: of the largest.
        largest: its name.
        disk_bytes: of all that they write.
        bundle_bytes: of the bundle that they end in.
        time_s: of all.
    """

    memory_bytes: int
    largest: str
    disk_bytes: int
    bundle_bytes: int
    time_s: float

    @property
    def written_bytes(self) -> int:
        """Stages and bundle."""
        return self.disk_bytes + self.bundle_bytes


def forecast(
    recipe: Recipe, *, weights: Path | None, base: Path | None, rates: Rates | None = None
) -> Forecast:
    """The forecast of a recipe.

    Args:
        recipe: what to build.
        weights: as in `make_plan`.
        base: as in `make_plan`; the merged weights have its shapes.
        rates: the package's own by default.

    Raises:
        CheckpointError, ConfigError: the checkpoint cannot be read.
        EstimateError: the package's rates are damaged.
        UnsupportedExportError: one layer alone exceeds `max_chunk_mb`.
    """
    if weights is None:
        assert recipe.checkpoint.synthetic is not None, "only a synthetic checkpoint has no folder"
        facts = synthetic_facts(recipe.checkpoint.synthetic)
    else:
        facts = checkpoint_facts(base or weights)
    return _forecast(recipe, weights, base, facts, rates or load_rates())


def of_fewer(whole: Forecast, recipe: Recipe) -> Forecast:
    """The forecast of a narrower recipe; its stages have the estimates that they had."""
    plan = make_plan(recipe, weights=whole.weights, base=whole.base)
    stages = {stage.name: whole.stages[stage.name] for stage in plan.stages}
    return Forecast(
        recipe=recipe,
        weights=whole.weights,
        base=whole.base,
        plan=plan,
        facts=whole.facts,
        stages=stages,
        bundle_bytes=_bundle_bytes(recipe, stages),
    )


def _forecast(
    recipe: Recipe, weights: Path | None, base: Path | None, facts: ModelFacts, rates: Rates
) -> Forecast:
    plan = make_plan(recipe, weights=weights, base=base)
    stages = estimate_stages(plan, recipe, facts, rates)
    return Forecast(
        recipe=recipe,
        weights=weights,
        base=base,
        plan=plan,
        facts=facts,
        stages=stages,
        bundle_bytes=_bundle_bytes(recipe, stages),
    )


def _bundle_bytes(recipe: Recipe, stages: Mapping[str, Estimate]) -> int:
    return sum(stages[name].disk_bytes for name in _shipped(recipe))


def _shipped(recipe: Recipe) -> Iterator[str]:
    """The stages whose files are copied into the bundle (see `bundle_plan`)."""
    targets = recipe.targets
    if targets.onnx is not None:
        yield from onnx_graph_stages(targets.onnx)
        if targets.onnx.genai is not None:
            yield ONNX_GENAI
    if targets.coreml is not None:
        for variant in targets.coreml.ship:
            yield from (f"coreml.{part}.{variant}" for part in coreml_parts(targets.coreml))
    if targets.mlx is not None:
        yield from (f"mlx.{variant}" for variant in targets.mlx.variants)
    if targets.apple_app is not None:
        yield f"coreml.vision.{targets.apple_app.vision}"
        yield f"apple_app.{targets.apple_app.variant}"
    if targets.torch is not None:
        yield TORCH_WEIGHTS
    if recipe.goldens.ship:
        yield GOLDEN
        yield from (f"parity.reference.{name}" for name in targets.measured().get("reference", ()))
