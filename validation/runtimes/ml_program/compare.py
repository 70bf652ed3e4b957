"""Two packages side by side, op by op: where do they first differ?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from validation.runtimes.ml_program.align import align
from validation.runtimes.ml_program.bits import NUMPY
from validation.runtimes.ml_program.errors import InputError
from validation.runtimes.ml_program.executable import Executable, Rounding


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value that both packages compute.

    Attributes:
        name, other_name: what the first and the second package call it.
        kind, other_kind: the ops that define it.
        relative_l2: |first - second| / |second| (Euclidean); infinite where shapes or non-finite
            elements differ.
        max_abs: largest |first - second|.
    """

    name: str
    other_name: str
    kind: str
    other_kind: str
    shape: tuple[int, ...]
    relative_l2: float
    max_abs: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All values that both packages compute, in the first one's order.

    Attributes:
        only_first, only_second: values that only one of them computes.
        first_divergence: the first row whose relative L2 error exceeds the tolerance.
    """

    rows: tuple[Row, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    tolerance: float
    first_divergence: Row | None


def compare(
    first: Executable,
    second: Executable,
    inputs: Mapping[str, np.ndarray],
    *,
    rounding: Rounding = "none",
    tolerance: float = 1e-3,
) -> Comparison:
    """Run both on the same inputs and fresh states and compare what they compute under one name.

    Values are matched by the name of the op's output where possible (see `align`). Both run in
    lock-step: only values that one of them has and the other has yet to reach are held.

    Args:
        inputs: as for the first package; floats are converted to what the second one takes.
        tolerance: relative L2 error up to which values count as equal.

    Raises:
        InputError: the packages have no value in common, or the inputs fit one of them only.
    """
    names = align(first.values, second.values)
    if not names:
        raise InputError(f"{first.path} and {second.path} have no value in common")
    left = _named(first, inputs, rounding, frozenset(names))
    right = _named(second, inputs, rounding, frozenset(names.values()))
    rows = tuple(_rows(left, right, names))
    matched = set(names.values())
    diverging = (row for row in rows if not (row.relative_l2 <= tolerance))
    return Comparison(
        rows=rows,
        only_first=tuple(name for name in first.value_names if name not in names),
        only_second=tuple(name for name in second.value_names if name not in matched),
        tolerance=tolerance,
        first_divergence=next(diverging, None),
    )


# A value's name, the op that defines it, and the value.
_Named = tuple[str, str, Tensor]


def _rows(
    left: Iterator[_Named], right: Iterator[_Named], names: Mapping[str, str]
) -> Iterator[Row]:
    """Drive both runs, each value of the first waiting for its counterpart in the second."""
    waiting: dict[str, tuple[str, Tensor]] = {}
    for name, kind, tensor in left:
        other_name = names[name]
        for reached, other_kind, other in right if other_name not in waiting else ():
            waiting[reached] = (other_kind, other)
            if reached == other_name:
                break
        if other_name not in waiting:
            continue  # in a branch that the second package did not take
        other_kind, other = waiting.pop(other_name)
        relative_l2, max_abs = difference(tensor, other)
        yield Row(
            name=name,
            other_name=other_name,
            kind=kind,
            other_kind=other_kind,
            shape=tuple(tensor.shape),
            relative_l2=relative_l2,
            max_abs=max_abs,
        )


def _named(
    package: Executable,
    inputs: Mapping[str, np.ndarray],
    rounding: Rounding,
    wanted: frozenset[str],
) -> Iterator[_Named]:
    fitting = _fitting(inputs, package)
    for done in package.steps(fitting, state=package.make_state(), rounding=rounding):
        for slot, result in zip(done.step.outputs, done.results, strict=True):
            if slot.name in wanted:
                yield slot.name, done.step.operation.kind, result


def _fitting(inputs: Mapping[str, np.ndarray], package: Executable) -> dict[str, np.ndarray]:
    """Inputs with floats converted to the precision the package takes."""
    wanted = {f.name: f.dtype for f in package.inputs if f.image is None and f.dtype.is_float}
    return {
        name: array.astype(NUMPY[wanted[name]])
        if name in wanted and array.dtype.kind == "f"
        else array
        for name, array in inputs.items()
    }


def difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Relative L2 error and largest absolute error of `first` against `second`.

    Equal infinities (masks) count as equal; any other non-finite element, and another shape,
    makes both infinite.
    """
    if first.shape != second.shape:
        return math.inf, math.inf
    if not first.numel():
        return 0.0, 0.0
    left, right = first.double().flatten(), second.double().flatten()
    finite = torch.isfinite(left) & torch.isfinite(right)
    if not bool((finite | (left == right)).all()):
        return math.inf, math.inf
    left, right = left[finite], right[finite]
    if not left.numel():
        return 0.0, 0.0
    gap = (left - right).abs()
    size, error = float(right.norm()), float(gap.norm())
    if error == 0.0:
        return 0.0, 0.0
    return (error / size if size else math.inf), float(gap.max())
