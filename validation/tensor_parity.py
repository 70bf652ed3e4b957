"""Adds one comparison of tensors to a tally: structure first, then every metric."""

from dataclasses import dataclass

import numpy as np

from validation.goldens import Goldens
from validation.logit_metrics import logit_metrics
from validation.metrics import smallest_atol, smallest_rtol, structural_problems, tensor_metrics
from validation.progress import Steps
from validation.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """At which rtol the smallest atol is looked for, and the other way round."""

    rtol: float
    atol: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What every component is compared with.

    Attributes:
        goldens: the reference's inputs and outputs.
        tolerance: for the smallest passing tolerances.
        steps: told of everything that is run.
    """

    goldens: Goldens
    tolerance: Tolerance
    steps: Steps


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which golden case is compared, and by which route the component was run."""

    case: str
    route: str = ""

    def __str__(self) -> str:
        return f"{self.case} ({self.route})" if self.route else self.case


def add_tensor(
    tally: Tally,
    name: str,
    reference: np.ndarray,
    candidate: np.ndarray,
    *,
    where: Where,
    tolerance: Tolerance,
) -> bool:
    """Compares one tensor; false when its structure forbids it."""
    problems = structural_problems({name: reference}, {name: candidate})
    if not tally.structure(problems, case=str(where)):
        return False
    for metric, value in tensor_metrics(reference, candidate).items():
        tally.add(metric, value, case=where.case, route=where.route)
    atol = smallest_atol(reference, candidate, rtol=tolerance.rtol)
    rtol = smallest_rtol(reference, candidate, atol=tolerance.atol)
    tally.add("smallest_atol", atol, case=where.case, route=where.route)
    tally.add("smallest_rtol", rtol, case=where.case, route=where.route)
    tally.detail("smallest_atol", f"at rtol {tolerance.rtol:g}")
    tally.detail("smallest_rtol", f"at atol {tolerance.atol:g}")
    return True


def add_logits(
    tally: Tally,
    reference: np.ndarray,
    candidate: np.ndarray,
    *,
    where: Where,
    tolerance: Tolerance,
    vocab_limit: int,
) -> bool:
    """Compares logits [K, V] of K positions; false when their structure forbids it.

    Structure is checked over all of V, numbers are compared over the tokenizer's vocabulary.
    """
    problems = structural_problems({"logits": reference}, {"logits": candidate})
    if problems:
        return tally.structure(problems, case=str(where))
    known_reference, known_candidate = reference[:, :vocab_limit], candidate[:, :vocab_limit]
    add_tensor(tally, "logits", known_reference, known_candidate, where=where, tolerance=tolerance)
    metrics = logit_metrics(reference, candidate, vocab_limit=vocab_limit)
    for metric, value in metrics.items():
        tally.add(metric, value, case=where.case, route=where.route, weight=metrics.num_positions)
    return True
