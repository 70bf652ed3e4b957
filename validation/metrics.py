"""Distances between a reference tensor and a candidate, all in float64.

`structural_problems` comes first: the metrics assume equal shapes. NaN anywhere makes every metric
NaN, and every gate is written so that NaN fails.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


def structural_problems(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """What keeps two sets of named arrays from being compared, empty when nothing does.

    Names must be equal as sets, then shapes, dtypes and finiteness of each array on both sides.
    Each problem names what was expected and what was found.
    """
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing {', '.join(missing)}; found {', '.join(sorted(found)) or 'none'}")
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(f"unexpected {', '.join(unexpected)}; expected {', '.join(expected)}")
    for name in (name for name in expected if name in found):
        problems.extend(_array_problems(name, expected[name], found[name]))
    return tuple(problems)


def _array_problems(name: str, expected: np.ndarray, found: np.ndarray) -> list[str]:
    problems = []
    if expected.shape != found.shape:
        problems.append(f"{name}: expected shape {list(expected.shape)}, found {list(found.shape)}")
    if expected.dtype != found.dtype:
        problems.append(f"{name}: expected dtype {expected.dtype}, found {found.dtype}")
    for side, array in (("reference", expected), ("found", found)):
        if num_bad := int(array.size - np.count_nonzero(np.isfinite(array))):
            problems.append(
                f"{name}: expected finite values, {side} has {num_bad} of {array.size} "
                "NaN or infinite"
            )
    if found.size == 0:
        problems.append(f"{name}: expected values, found an empty array")
    return problems


@dataclass(frozen=True, kw_only=True)
class TensorMetrics:
    """Distances of one candidate from its reference.

    Attributes:
        relative_l2: |c - r| / |r|; for an all-zero reference 0 when equal, infinite otherwise.
        max_abs: max |c - r|.
        cosine: of the flattened tensors; 1 when both are all zero, 0 when one of them is.
        psnr_db: 20 log10(max|r| / sqrt(mean (c - r)^2)) with the mean over all elements;
            +inf for equal tensors, -inf for an all-zero reference that is not met.
    """

    relative_l2: float
    max_abs: float
    cosine: float
    psnr_db: float

    def items(self) -> tuple[tuple[str, float], ...]:
        """(metric name, value) in the order of reports."""
        return (
            ("relative_l2", self.relative_l2),
            ("max_abs", self.max_abs),
            ("cosine", self.cosine),
            ("psnr_db", self.psnr_db),
        )


def tensor_metrics(reference: np.ndarray, candidate: np.ndarray) -> TensorMetrics:
    """Compares two arrays of one shape; a single NaN or infinity in either makes all metrics NaN.

    Raises:
        ValueError: the shapes differ (call `structural_problems` first) or are empty.
    """
    r, c = _pair(reference, candidate)
    if not _finite(r, c):
        return TensorMetrics(
            relative_l2=math.nan, max_abs=math.nan, cosine=math.nan, psnr_db=math.nan
        )
    error = c - r
    error_norm, reference_norm = _norm(error), _norm(r)
    peak, rms = float(np.max(np.abs(r))), error_norm / math.sqrt(r.size)
    return TensorMetrics(
        relative_l2=_ratio(error_norm, reference_norm),
        max_abs=float(np.max(np.abs(error))),
        cosine=_cosine(r, c, norms=(reference_norm, _norm(c))),
        psnr_db=math.inf if rms == 0 else (20 * math.log10(peak / rms) if peak > 0 else -math.inf),
    )


def smallest_atol(reference: np.ndarray, candidate: np.ndarray, *, rtol: float) -> float:
    """The smallest atol for which |c - r| <= atol + rtol |r| holds everywhere.

    NaN when either array holds a NaN or an infinity.
    """
    r, c = _pair(reference, candidate)
    if not _finite(r, c):
        return math.nan
    difference, allowance = np.abs(c - r), rtol * np.abs(r)
    atol = max(0.0, float(np.max(difference - allowance)))
    while not np.all(difference <= atol + allowance):  # a last bit lost to rounding
        atol = math.nextafter(atol, math.inf)
    return atol


def smallest_rtol(reference: np.ndarray, candidate: np.ndarray, *, atol: float) -> float:
    """The smallest rtol for which |c - r| <= atol + rtol |r| holds everywhere.

    Infinite when an element of the reference is zero and misses by more than atol; NaN when either
    array holds a NaN or an infinity.
    """
    r, c = _pair(reference, candidate)
    if not _finite(r, c):
        return math.nan
    difference, scale = np.abs(c - r), np.abs(r)
    excess = difference - atol
    if not np.any(excess > 0):
        return 0.0
    with np.errstate(divide="ignore", over="ignore"):
        rtol = float(np.max(excess[excess > 0] / scale[excess > 0]))
    while math.isfinite(rtol) and not np.all(difference <= atol + rtol * scale):
        rtol = math.nextafter(rtol, math.inf)
    return rtol


def _pair(reference: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if reference.shape != candidate.shape or reference.size == 0:
        raise ValueError(f"cannot compare shapes {reference.shape} and {candidate.shape}")
    return reference.astype(np.float64), candidate.astype(np.float64)


def _finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.ravel()))


def _ratio(error_norm: float, reference_norm: float) -> float:
    if error_norm == 0.0:
        return 0.0
    return error_norm / reference_norm if reference_norm > 0 else math.inf


def _cosine(r: np.ndarray, c: np.ndarray, *, norms: tuple[float, float]) -> float:
    if 0.0 in norms:
        return float(norms[0] == norms[1])
    # Normalised before the product: large tensors must not overflow.
    return float(np.dot(r.ravel() / norms[0], c.ravel() / norms[1]))
