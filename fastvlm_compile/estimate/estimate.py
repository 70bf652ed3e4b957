"""Plan, tensor sizes, rates -> what every stage will take, before anything starts. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastvlm_compile.estimate.disk import disk_bytes
from fastvlm_compile.estimate.features import features_of
from fastvlm_compile.estimate.job import Job
from fastvlm_compile.estimate.model import ModelFacts
from fastvlm_compile.estimate.rates import Rates, cost
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.stage import Plan

_GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a stage takes when it is built.

    Attributes:
        memory_bytes: peak of its processes together (see `memory_meter`).
        disk_bytes: of its output.
        time_s: wall time on a machine like the one that the rates were recorded on.
    """

    memory_bytes: int
    disk_bytes: int
    time_s: float

    @classmethod
    def together(cls, stages: Iterable["Estimate"]) -> "Estimate":
        """Of stages one after the other; nothing without any."""
        every = list(stages)
        return cls(
            memory_bytes=max((each.memory_bytes for each in every), default=0),
            disk_bytes=sum(each.disk_bytes for each in every),
            time_s=sum(each.time_s for each in every),
        )


def estimate_stages(
    plan: Plan, recipe: Recipe, facts: ModelFacts, rates: Rates
) -> dict[str, Estimate]:
    """The estimate of every stage, by name, in the plan's order.

    Args:
        plan: of the recipe.
        recipe: says what goldens and calibration hold.
        facts: of the checkpoint.
        rates: of every kind of stage in the plan.

    Raises:
        UnsupportedExportError: one layer alone exceeds `max_chunk_mb`.
    """
    stages = {stage.name: stage for stage in plan.stages}
    written: dict[str, float] = {}
    found = {}
    for stage in plan.stages:
        job = Job(stage=stage, stages=stages, recipe=recipe, facts=facts)
        written[stage.name] = disk_bytes(job)
        features = features_of(job, written)
        assert job.kind in rates.kinds, f"no outcome of {job.kind} was ever recorded"
        kind = rates.kinds[job.kind]
        found[stage.name] = Estimate(
            memory_bytes=round(_GIGA * cost(kind.memory_gb, features)),
            disk_bytes=round(written[stage.name]),
            time_s=round(cost(kind.time_s, features), 1),
        )
    return found


def largest(estimates: Mapping[str, Estimate]) -> tuple[str, Estimate]:
    """The stage that takes the most memory."""
    return max(estimates.items(), key=lambda item: item[1].memory_bytes)
