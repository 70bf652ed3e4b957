"""Element-wise ops against coremltools' value inference and torch, over random shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_program_building import Case, check_cases

SHAPES = ((7,), (2, 3), (2, 3, 4), (1, 2, 3, 5), (2, 1, 2, 3, 2))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.random(shape, dtype=np.float32) + 0.05).astype(np.float32)


def inside(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.random(shape, dtype=np.float32) * 1.8 - 0.9).astype(np.float32)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-9, 10, shape).astype(np.int32)


UNARY = {
    "abs": normal,
    "acos": inside,
    "asin": inside,
    "atan": normal,
    "atanh": inside,
    "ceil": normal,
    "cos": normal,
    "cosh": normal,
    "erf": normal,
    "exp": normal,
    "exp2": normal,
    "floor": normal,
    "inverse": positive,
    "log": positive,
    "round": normal,
    "rsqrt": positive,
    "sign": normal,
    "sin": normal,
    "sinh": normal,
    "sqrt": positive,
    "square": normal,
    "tan": inside,
    "tanh": normal,
    "relu": normal,
    "relu6": normal,
    "sigmoid": normal,
    "softplus": normal,
    "softsign": normal,
}


@pytest.mark.parametrize("opset", [5, 8])
def test_functions_of_one_tensor_agree_with_coremltools(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    cases = [
        Case(op=op, inputs={"x": draw(rng, *SHAPES[rng.integers(len(SHAPES))]) * scale})
        for op, draw in UNARY.items()
        for scale in (np.float32(1.0), np.float32(0.9))
    ]
    cases += [Case(op=op, inputs={"x": integers(rng, 3, 4)}) for op in ("abs", "sign", "square")]
    cases += [Case(op="logical_not", inputs={"x": integers(rng, 3, 4) > 0})]
    half = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], np.float32)
    cases += [Case(op="round", inputs={"x": half}), Case(op="sign", inputs={"x": half * 0})]
    check_cases(cases, tmp_path, opset=opset)


def test_epsilons_are_added_before_the_function(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(op=op, inputs={"x": positive(rng, 3, 4)}, attributes={"epsilon": np.float32(epsilon)})
        for op in ("inverse", "log", "rsqrt")
        for epsilon in (0.5, 1e-3)
    ]
    check_cases(cases, tmp_path)


def test_bounds_are_those_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 4, 5)
    cases = [
        Case(op="clip", inputs={"x": x}, attributes={"alpha": -0.3, "beta": 0.7}),
        Case(op="threshold", inputs={"x": x}, attributes={"alpha": 0.2}),
        Case(op="threshold", inputs={"x": integers(rng, 9)}, attributes={"alpha": 3}),
    ]
    check_cases(cases, tmp_path)


@pytest.mark.parametrize("opset", [5, 8])
def test_activations_agree_with_coremltools_and_torch(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 2, 3, 4, 5) * 3
    alpha, beta = normal(rng, 3), positive(rng, 3)
    both = {"alpha": np.float32(0.3), "beta": np.float32(0.6)}
    one = {"alpha": np.float32(0.3)}
    cases = [
        *(
            Case(op=op, inputs={"x": x}, attributes=both)
            for op in ("clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard")
        ),
        *(Case(op=op, inputs={"x": x}, attributes=one) for op in ("elu", "leaky_relu")),
        Case(
            op="thresholded_relu",
            inputs={"x": x},
            attributes=one,
            expected=lambda x: np.where(x >= np.float32(0.3), x, 0),
        ),
        Case(op="silu", inputs={"x": x}, expected=lambda x: F.silu(torch.tensor(x))),
        Case(op="prelu", inputs={"x": x}, attributes={"alpha": alpha}),
        Case(op="softplus_parametric", inputs={"x": x}, attributes={"alpha": alpha, "beta": beta}),
        *(
            Case(op="gelu", inputs={"x": x}, attributes={"mode": mode})
            for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
        ),
        *(Case(op="softmax", inputs={"x": x}, attributes={"axis": axis}) for axis in range(-2, 4)),
    ]
    check_cases(cases, tmp_path, opset=opset)


def test_the_three_forms_of_gelu_are_told_apart(tmp_path: Path) -> None:
    x = np.linspace(-4, 4, 81, dtype=np.float32)
    wrong = Case(
        op="gelu",
        inputs={"x": x},
        attributes={"mode": "TANH_APPROXIMATION"},
        expected=lambda x: F.gelu(torch.tensor(x)),
    )
    with pytest.raises(AssertionError, match="relative L2"):
        check_cases([wrong], tmp_path)


BINARY = ("add", "sub", "mul", "maximum", "minimum", "floor_div", "mod")
COMPARE = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
BROADCAST = (((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((1,), (2, 3)))


@pytest.mark.parametrize("opset", [5, 8])
def test_functions_of_two_tensors_broadcast_as_coremltools_says(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    cases = []
    for left, right in BROADCAST:
        cases += [
            Case(op=op, inputs={"x": normal(rng, *left), "y": normal(rng, *right)})
            for op in (*BINARY, "real_div")
        ]
        cases.append(Case(op="pow", inputs={"x": positive(rng, *left), "y": normal(rng, *right)}))
        small = rng.integers(1, 4, right).astype(np.int32)
        cases += [Case(op=op, inputs={"x": integers(rng, *left), "y": small}) for op in BINARY]
        cases += [
            Case(op=op, inputs={"x": integers(rng, *left), "y": integers(rng, *right)})
            for op in COMPARE
        ]
        cases += [
            Case(op=op, inputs={"x": integers(rng, *left) > 0, "y": integers(rng, *right) > 0})
            for op in ("logical_and", "logical_or", "logical_xor")
        ]
    check_cases(cases, tmp_path, opset=opset)


def test_select_takes_a_where_the_condition_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(
            op="select",
            inputs={
                "cond": integers(rng, *condition) > 0,
                "a": normal(rng, *left),
                "b": normal(rng, *right),
            },
            expected=lambda **given: np.where(*given.values()),
        )
        for condition, left, right in (
            ((3, 4), (3, 4), (3, 4)),
            ((3, 1), (3, 4), (2, 1, 1)),  # coremltools declares the shape of a and b alone
        )
    ]
    check_cases(cases, tmp_path)


def test_casts_cut_towards_zero_and_make_booleans_of_non_zeros(tmp_path: Path) -> None:
    x = np.array([-2.7, -0.5, 0.0, 0.5, 2.7, 100.0], np.float32)
    whole = np.array([-3, 0, 1, 70], np.int32)
    cases = [Case(op="cast", inputs={"x": x}, attributes={"dtype": d}) for d in ("int32", "bool")]
    cases += [
        Case(op="cast", inputs={"x": whole}, attributes={"dtype": d})
        for d in ("fp32", "bool", "int8", "int16", "int32")
    ]
    cases += [
        Case(op="cast", inputs={"x": abs(whole)}, attributes={"dtype": d})
        for d in ("uint8", "uint16")
    ]
    check_cases(cases, tmp_path)


def test_quantize_and_dequantize_follow_their_formulas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 4)
    scale = positive(rng, 3) / 20
    bytes_ = rng.integers(-128, 128, (2, 3, 4)).astype(np.int8)
    vector = {"scale": scale, "zero_point": np.array([1, -2, 3], np.int8), "axis": 1}
    cases = [
        Case(
            op="quantize",
            inputs={"input": x},
            attributes={"scale": np.float32(0.03), "output_dtype": "int8"},
        ),
        Case(op="quantize", inputs={"input": x}, attributes={**vector, "output_dtype": "int8"}),
        Case(
            op="quantize",
            inputs={"input": x},
            attributes={
                "scale": np.float32(0.02),
                "zero_point": np.uint8(128),
                "output_dtype": "uint8",
            },
        ),
        Case(
            op="dequantize",
            inputs={"input": bytes_},
            attributes=vector,
            expected=lambda **given: (
                (given["input"] - np.array([1.0, -2, 3])[:, None])
                * scale[:, None].astype(np.float64)
            ),
        ),
    ]
    check_cases(cases, tmp_path)
