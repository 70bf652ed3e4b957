"""Faults that change nothing, and why; a kind that is not in this table must be noticed."""

from pathlib import Path

import numpy as np

from validation.kill_matrix.bench import Bench
from validation.kill_matrix.faults_files import PADDING
from validation.kill_matrix.faults_language import DEEP_MASK
from validation.kill_matrix.faults_ops import (
    COMMUTED,
    IGNORED_PAD,
    INDEX_CHECK,
    NEGATIVE_INDEX,
    SINGLE_PLACE,
)
from validation.kill_matrix.faults_weights import ROTARY_SIGN
from validation.kill_matrix.faults_wiring import WRITTEN_VALUE
from validation.metrics import tensor_metrics

TOLERANCE = 1e-7
"""Relative L2 on random inputs: one unit in the last place of float32."""

REASONS = {
    COMMUTED: "a + b = b + a and a * b = b * a, bit for bit in IEEE 754",
    IGNORED_PAD: "the op set reads `pad` only where `pad_type` is `custom`; here it is `valid`",
    INDEX_CHECK: "it asks for a check that valid indices pass; the result is the same",
    ROTARY_SIGN: "queries and keys both change sign, their products do not",
    SINGLE_PLACE: "the kernel stands at one place, however far the next would be",
    WRITTEN_VALUE: "a state holds what was written to it last",
    NEGATIVE_INDEX: "it is taken for negative positions alone, and positions begin at 0",
    DEEP_MASK: (
        "the scores of this model stay below 1e3 and exp(x) of float32 is exactly 0 below -104, "
        "so that any mask value from -2e4 to -3e4 gives the weight 0"
    ),
    PADDING: "blobs begin at multiples of 64 bytes; what lies between them belongs to no tensor",
    "byte of the program flipped": (
        "it fell into a name or a description, which nothing computes with"
    ),
}
"""Kind -> the reason. Both are needed: the reason here, and equal outputs."""


def largest_change(bench: Bench, intact: Path, damaged: Path, file: str) -> float:
    """The largest relative L2 between the outputs of intact and damaged files; 0 for equal bits."""
    pairs = zip(
        bench.random_outputs(intact, file), bench.random_outputs(damaged, file), strict=True
    )
    changes = [_change(one, other) for one, other in pairs]
    return float(np.max(changes))  # NaN, if there is one


def _change(expected: np.ndarray, found: np.ndarray) -> float:
    if np.array_equal(expected, found):
        return 0.0
    return tensor_metrics(expected, found).relative_l2
