"""Gathering and scattering against numpy."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_program_building import Case, check_cases, save_cases

from validation.runtimes.ml_program.errors import ExecutionError
from validation.runtimes.ml_program.executable import load


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("opset", [5, 6, 8])
def test_gathering_agrees_with_numpy(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 3, 4, 5)
    low = 0 if opset >= 7 else -3  # negative indices count from the end until iOS 16
    cases = []
    for axis in (0, 1, -1):
        for shape in ((6,), (2, 3), (1,)):
            indices = rng.integers(low, 3, shape).astype(np.int32)
            cases.append(
                Case(
                    op="gather",
                    inputs={"x": x, "indices": indices},
                    attributes={"axis": axis},
                    expected=lambda x, indices, axis=axis: np.take(x, indices, axis),
                )
            )
        shape = list(x.shape)
        shape[axis] = 2
        along = rng.integers(low, 3, shape).astype(np.int32)
        cases.append(
            Case(
                op="gather_along_axis",
                inputs={"x": x, "indices": along},
                attributes={"axis": axis},
                expected=lambda x, indices, axis=axis: np.take_along_axis(x, indices, axis),
            )
        )
    check_cases(cases, tmp_path, opset=opset)


@pytest.mark.parametrize("opset", [5, 6, 8])
def test_gathering_by_vectors_and_in_batches_agrees_with_numpy(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 3, 4, 5)
    cases = []
    pairs = rng.integers(0, 3, (4, 2)).astype(np.int32)
    cases.append(
        Case(
            op="gather_nd",
            inputs={"x": x, "indices": pairs},
            expected=lambda x, indices: x[indices[:, 0], indices[:, 1]],
        )
    )
    if opset >= 6:
        batched = rng.integers(0, 4, (3, 2)).astype(np.int32)
        cases.append(
            Case(
                op="gather",
                inputs={"x": x, "indices": batched},
                attributes={"axis": 1, "batch_dims": 1},
                expected=lambda x, indices: np.stack(
                    [part[index] for part, index in zip(x, indices, strict=True)]
                ),
            )
        )
        cases.append(
            Case(
                op="gather_nd",
                inputs={"x": x, "indices": batched[..., None]},
                attributes={"batch_dims": 1},
                expected=lambda x, indices: np.stack(
                    [part[index[:, 0]] for part, index in zip(x, indices, strict=True)]
                ),
            )
        )
    check_cases(cases, tmp_path, opset=opset)


def combine(kept: Any, new: Any, mode: str) -> Any:
    return {
        "update": lambda: new,
        "add": lambda: kept + new,
        "sub": lambda: kept - new,
        "mul": lambda: kept * new,
        "div": lambda: kept / new,
        "max": lambda: np.maximum(kept, new),
        "min": lambda: np.minimum(kept, new),
    }[mode]()


def scatter(data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, mode: str) -> np.ndarray:
    found = data.copy()
    for row, update in zip(indices, updates, strict=True):
        found[row] = combine(found[row], update, mode)
    return found


def scatter_along(
    data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, mode: str
) -> np.ndarray:
    found = data.copy()
    for i, j in np.ndindex(indices.shape):
        place = (indices[i, j], j)
        found[place] = combine(found[place], updates[i, j], mode)
    return found


def scatter_nd(
    data: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, mode: str
) -> np.ndarray:
    found = data.copy()
    for index, update in zip(indices, updates, strict=True):
        found[tuple(index)] = combine(found[tuple(index)], update, mode)
    return found


@pytest.mark.parametrize("mode", ["update", "add", "sub", "mul", "div", "max", "min"])
def test_scattering_combines_one_update_after_the_other(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = normal(rng, 4, 5)
    # Places meet twice except under "update", where which one stays is not defined.
    rows = np.array([2, 0, 3] if mode == "update" else [2, 0, 2], np.int32)
    updates = normal(rng, 3, 5)
    along = rng.permuted(np.tile(np.arange(4, dtype=np.int32)[:, None], (1, 5)), axis=0)[:3]
    nd = np.array([[0, 1], [3, 4], [2, 2]], np.int32)
    how = {"mode": mode}
    cases = [
        Case(
            op="scatter",
            inputs={"data": data, "indices": rows, "updates": updates},
            attributes={**how, "axis": 0},
            expected=partial(scatter, mode=mode),
        ),
        Case(
            op="scatter",
            inputs={"data": data.T.copy(), "indices": rows, "updates": updates.T.copy()},
            attributes={**how, "axis": -1},
            expected=lambda data, indices, updates: (
                scatter(data.T, indices, updates.T, mode=mode).T
            ),
        ),
        Case(
            op="scatter_along_axis",
            inputs={"data": data, "indices": along, "updates": updates},
            attributes={**how, "axis": 0},
            expected=partial(scatter_along, mode=mode),
        ),
        Case(
            op="scatter_nd",
            inputs={"data": data, "indices": nd, "updates": normal(rng, 3)},
            attributes=how,
            expected=partial(scatter_nd, mode=mode),
        ),
    ]
    check_cases(cases, tmp_path)


def test_an_index_out_of_bounds_is_an_error_that_names_the_op(tmp_path: Path) -> None:
    x = np.zeros((3, 2), np.float32)
    case = Case(
        op="gather",
        inputs={"x": x, "indices": np.array([0, 1], np.int32)},
        expected=lambda x, indices: x[indices],
    )
    package, feeds, _ = save_cases([case], tmp_path / "gather.mlpackage")
    for wrong in (3, -1):
        feeds["c0_indices_0"] = np.array([0, wrong], np.int32)
        with pytest.raises(ExecutionError, match=rf"gather .*index {wrong} lies outside 0 .. 2"):
            load(package).run(feeds)
