"""A runtime's components against both references, under the names of the build's parity stage."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from fastvlm_compile.corruptions.artifacts import TOLERANCE, References, Target
from fastvlm_compile.corruptions.limits import CONVERSION_SUFFIXES, VARIANT
from fastvlm_compile.progress import silent
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.progress import Steps
from validation.runtimes.base import Runtime
from validation.tally import Tally
from validation.tensor_parity import Comparison

R = TypeVar("R", bound=Runtime)
Measure = Callable[[Comparison, R, Tally], object]
"""Runs one component on golden inputs."""

UNCOUNTED = 10**9
"""Steps of which nobody is told."""


def measure_both(
    target: Target,
    runtime: R,
    components: Sequence[str],
    references: References,
    measures: Mapping[str, Measure[R]],
    *,
    exact: R | None = None,
) -> Iterator[Measurement]:
    """Each component against the float32 goldens, and against the dequantized reference.

    Args:
        target: whose names the components have.
        runtime: of the damaged files.
        components: to measure.
        references: what to compare with.
        measures: by component.
        exact: what the dequantized reference is compared with, if not `runtime`.

    Raises:
        UserError: the runtime refuses the files.
    """
    for component in components:
        pairs = (
            ("", references.goldens, runtime),
            (CONVERSION_SUFFIXES[target], references.dequantized, exact or runtime),
        )
        for suffix, goldens, runs in pairs:
            tally = Tally(
                target=target,
                variant=VARIANT,
                component=f"{component}{suffix}",
                executor=runs.executor,
            )
            measures[component](comparison_with(goldens), runs, tally)
            yield from tally.measurements()


def comparison_with(goldens: Goldens) -> Comparison:
    """Nobody is told of the steps."""
    return Comparison(goldens=goldens, tolerance=TOLERANCE, steps=Steps(silent, UNCOUNTED))
