"""Shapes, joining, splitting and slicing against coremltools' value inference and numpy."""

from pathlib import Path

import numpy as np
import pytest
from ml_program_building import Case, check_cases


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize("opset", [5, 7, 8])
def test_shapes_change_as_coremltools_says(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 2, 3, 4)
    cases = [
        *(
            Case(op="reshape", inputs={"x": x}, attributes={"shape": shape})
            for shape in ([6, 4], [-1], [0, -1, 2], [4, -1], [0, 0, 4], [1, 2, 3, 2, 2])
        ),
        *(
            Case(op="transpose", inputs={"x": x}, attributes={"perm": perm})
            for perm in ([2, 0, 1], [0, 2, 1], [-1, -2, -3])
        ),
        *(
            Case(op="expand_dims", inputs={"x": x}, attributes={"axes": axes})
            for axes in ([0], [-1], [1, 3], [-1, -4], [4, 0])
        ),
        *(
            Case(op="squeeze", inputs={"x": x[:, :1, None]}, attributes={"axes": axes})
            for axes in ([1], [-2], [1, 2], [2, 1])
        ),
        Case(op="squeeze", inputs={"x": x[:, :1, None]}),
        *(Case(op="flatten2d", inputs={"x": x}, attributes={"axis": axis}) for axis in (1, 2, -1)),
        Case(op="shape", inputs={"x": x}),
        Case(op="identity", inputs={"x": x}),
        *(
            Case(op="reverse", inputs={"x": x}, attributes=how)
            for how in ({"axes": [0]}, {"axes": [1, -1]}, {})
        ),
        Case(
            op="transpose",
            inputs={"x": rng.integers(0, 9, (2, 3)) > 4},
            attributes={"perm": [1, 0]},
        ),
    ]
    check_cases(cases, tmp_path, opset=opset)


def test_zeros_in_a_shape_count_from_the_right_since_ios17(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 2, 50)
    case = Case(op="reshape", inputs={"x": x}, attributes={"shape": [1, 0, -1, 0]})
    check_cases([case], tmp_path, opset=7)  # [1, 1, 2, 50], by the op's documentation


def test_joining_and_splitting_agree_with_coremltools(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)]
    x = normal(rng, 6, 4)
    cases = [
        *(
            Case(
                op="concat",
                inputs={"values": parts},
                attributes={"axis": axis},
                expected=lambda values, axis=axis: np.concatenate(values, axis),
            )
            for axis in (0, 1, -1)
        ),
        Case(
            op="concat",
            inputs={"values": [ints(1, 2), ints(3), ints(4, 5, 6)]},
            attributes={"axis": 0},
        ),
        Case(
            op="concat",
            inputs={"values": [x, x + 1]},
            attributes={"axis": 0, "interleave": True},
            expected=lambda values: np.stack(values, 1).reshape(12, 4),
        ),
        *(
            Case(
                op="stack",
                inputs={"values": parts},
                attributes={"axis": axis},
                expected=lambda values, axis=axis: np.stack(values, axis),
            )
            for axis in (0, 2, -1)
        ),
        Case(op="split", inputs={"x": x}, attributes={"num_splits": 3, "axis": 0}),
        Case(op="split", inputs={"x": x}, attributes={"split_sizes": [1, 2, 3], "axis": 0}),
        Case(op="split", inputs={"x": x}, attributes={"num_splits": 2, "axis": -1}),
        Case(op="tile", inputs={"x": x}, attributes={"reps": [2, 3]}),
        Case(op="tile", inputs={"x": rng.integers(0, 9, (2, 1)) > 4}, attributes={"reps": [1, 3]}),
    ]
    check_cases(cases, tmp_path)


SLICES = (
    {"begin": [0, 1, 0], "end": [2, 4, 6]},
    {"begin": [0, -4, -3], "end": [2, -1, 6], "stride": [1, 2, 1]},
    {"begin": [1, 4, 5], "end": [0, 0, 1], "stride": [-1, -2, -1]},
    {"begin": [0, 0, 0], "end": [0, 0, 0], "end_mask": [True] * 3, "stride": [1, 3, 2]},
    {
        "begin": [0, 9, 0],
        "end": [2, 1, 4],
        "begin_mask": [False, True, False],
        "stride": [1, -1, 1],
    },
    {"begin": [1, 2, 0], "end": [0, 0, 3], "squeeze_mask": [True, True, False]},
    {"begin": [-1, 0, 2], "end": [0, 5, 3], "squeeze_mask": [True, False, False]},
    {"begin": [0, 0, 0], "end": [2, 50, 60]},
)


@pytest.mark.parametrize("opset", [5, 8])
def test_slices_are_those_of_numpy(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 2, 5, 6)
    cases = [Case(op="slice_by_index", inputs={"x": x}, attributes=how) for how in SLICES]
    cases += [
        Case(op="slice_by_size", inputs={"x": x}, attributes={"begin": begin, "size": size})
        for begin, size in (
            ([0, 1, 2], [2, 3, 4]),
            ([1, 2, 0], [-1, -1, 3]),
            ([0, -3, -1], [1, 2, 1]),
        )
    ]
    check_cases(cases, tmp_path, opset=opset)


def test_slices_may_be_computed_at_run_time(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 2, 5, 6)
    given = {"x": x, "begin": ints(0, 1, 2), "end": ints(2, 4, 5)}
    cases = [
        Case(op="slice_by_index", inputs=given, expected=lambda x, begin, end: x[:, 1:4, 2:5]),
        Case(
            op="slice_by_size",
            inputs={"x": x, "begin": ints(1, 0, 3), "size": ints(1, -1, 2)},
            expected=lambda x, begin, size: x[1:2, :, 3:5],
        ),
        Case(
            op="reshape",
            inputs={"x": x, "shape": ints(5, -1)},
            expected=lambda x, shape: x.reshape(5, 12),
        ),
        Case(
            op="tile",
            inputs={"x": x, "reps": ints(1, 2, 1)},
            expected=lambda **given: np.tile(given["x"], given["reps"]),
        ),
        Case(
            op="slice_update",
            inputs={**given, "update": np.ones((2, 3, 3), np.float32)},
            expected=lambda x, begin, end, update: _updated(x),
        ),
    ]
    check_cases(cases, tmp_path)


def _updated(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy[:, 1:4, 2:5] = 1
    return copy


def test_updates_of_slices_leave_the_rest_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 5, 6)
    cases = [
        Case(
            op="slice_update",
            inputs={"x": x, "update": normal(rng, *_sliced(x, how).shape)},
            attributes=how,
        )
        for how in SLICES
    ]
    check_cases(cases, tmp_path)


def _sliced(x: np.ndarray, how: dict[str, list[int]]) -> np.ndarray:
    index: list[int | slice] = []
    for i in range(x.ndim):
        if how.get("squeeze_mask", [False] * 3)[i]:
            index.append(how["begin"][i])
            continue
        begin = None if how.get("begin_mask", [False] * 3)[i] else how["begin"][i]
        end = None if how.get("end_mask", [False] * 3)[i] else how["end"][i]
        index.append(slice(begin, end, how.get("stride", [1] * 3)[i]))
    return x[tuple(index)]
