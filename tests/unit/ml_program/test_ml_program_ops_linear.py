"""Products, attention, normalizations and reductions against torch and coremltools."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_program_building import Case, check_cases


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("opset", [5, 8])
def test_linear_and_matmul_agree_with_coremltools(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    cases = [
        Case(
            op="linear",
            inputs={"x": normal(rng, *shape, 6)},
            attributes={"weight": normal(rng, 5, 6), "bias": normal(rng, 5)},
        )
        for shape in ((), (3,), (2, 3))
    ]
    for tx in (False, True):
        for ty in (False, True):
            x = normal(rng, 2, 1, *((4, 3) if tx else (3, 4)))
            y = normal(rng, 5, *((2, 4) if ty else (4, 2)))
            cases.append(
                Case(
                    op="matmul",
                    inputs={"x": x, "y": y},
                    attributes={"transpose_x": tx, "transpose_y": ty},
                )
            )
    cases.append(Case(op="matmul", inputs={"x": normal(rng, 4), "y": normal(rng, 4, 2)}))
    whole = rng.integers(-5, 6, (3, 4)).astype(np.int32)
    cases.append(Case(op="matmul", inputs={"x": whole, "y": whole.T.copy()}))
    check_cases(cases, tmp_path, opset=opset)


def test_einsum_broadcasts_batch_and_height(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(
            op="einsum",
            inputs={"values": [normal(rng, 2, 3, 4, 5), normal(rng, 2, 5, 4, 6)]},
            attributes={"equation": "nchw,nwhu->nchu"},
            expected=lambda values: np.einsum("nchw,nwhu->nchu", *values),
        ),
        Case(
            op="einsum",
            inputs={"values": [normal(rng, 3, 1, 5), normal(rng, 5, 4, 6)]},
            attributes={"equation": "chw,whr->chr"},
            expected=lambda values: np.einsum("caw,whr->chr", *values),
        ),
    ]
    check_cases(cases, tmp_path)


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, attn_mask: np.ndarray | None = None
) -> np.ndarray:
    scores = query.astype(np.float64) @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        added = np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == bool else attn_mask
        scores = scores + added
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ value


def test_fused_attention_follows_its_formula(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for lead in ((2,), (1, 3), (2, 1, 3)):
        given = {
            "query": normal(rng, *lead, 4, 8),
            "key": normal(rng, *lead, 6, 8),
            "value": normal(rng, *lead, 6, 5),
        }
        causal = np.tril(np.ones((4, 6), bool), 2)
        for mask in (None, causal, np.where(causal, 0, -1e4).astype(np.float32)):
            inputs = given if mask is None else {**given, "attn_mask": mask}
            cases.append(Case(op="scaled_dot_product_attention", inputs=inputs, expected=attention))
    check_cases(cases, tmp_path)


@pytest.mark.parametrize("opset", [5, 8])
def test_normalizations_agree_with_torch_and_coremltools(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 2, 3, 4, 5) * 2 + 1
    gamma, beta = normal(rng, 3), normal(rng, 3)
    mean, variance = normal(rng, 3), abs(normal(rng, 3)) + 0.1
    scale = {"gamma": gamma, "beta": beta, "epsilon": np.float32(1e-3)}
    g, b = torch.tensor(gamma), torch.tensor(beta)
    cases = [
        Case(
            op="batch_norm",
            inputs={"x": data},
            attributes={"mean": mean, "variance": variance, **scale},
            expected=lambda x: F.batch_norm(
                torch.tensor(x), torch.tensor(mean), torch.tensor(variance), g, b, eps=1e-3
            ),
        )
        for data in (x, x[..., 0], x[..., None])
    ]
    cases += [
        Case(
            op="instance_norm",
            inputs={"x": data},
            attributes=scale,
            expected=lambda x: F.instance_norm(torch.tensor(x), weight=g, bias=b, eps=1e-3),
        )
        for data in (x, x[..., 0])
    ]
    cases += [
        Case(
            op="local_response_norm",
            inputs={"x": x},
            attributes={"size": 3, "alpha": 0.01, "beta": 0.7, "k": 1.5},
            expected=lambda x: F.local_response_norm(torch.tensor(x), 3, 0.01, 0.7, 1.5),
        ),
        Case(op="l2_norm", inputs={"x": x}, attributes={"epsilon": np.float32(1e-3)}),
        Case(op="l2_norm", inputs={"x": x[0]}),
    ]
    check_cases(cases, tmp_path, opset=opset)


@pytest.mark.parametrize("opset", [5, 8])
def test_layers_are_normalized_over_any_axes(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 2, 3, 4, 5) * 2 + 1
    cases = []
    for axes in ([-1], [2, 3], [1], [1, 3], [0, 1, 2, 3], [-2]):
        shape = [size for i, size in enumerate(x.shape) if i in [axis % 4 for axis in axes]]
        cases.append(
            Case(
                op="layer_norm",
                inputs={"x": x},
                attributes={
                    "axes": axes,
                    "gamma": normal(rng, *shape),
                    "beta": normal(rng, *shape),
                    "epsilon": np.float32(1e-4),
                },
            )
        )
    cases.append(Case(op="layer_norm", inputs={"x": x}, attributes={"axes": [1]}))
    check_cases(cases, tmp_path, opset=opset)


REDUCE = (
    "reduce_l1_norm",
    "reduce_l2_norm",
    "reduce_log_sum_exp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_sum_square",
)


@pytest.mark.parametrize("opset", [5, 8])
def test_reductions_agree_with_coremltools(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    cases = []
    for axes in ([0], [-1], [1, 2], [2, 0]):
        for keep in (False, True):
            x = normal(rng, 2, 3, 4)
            how = {"axes": axes, "keep_dims": keep}
            cases += [Case(op=op, inputs={"x": x}, attributes=how) for op in REDUCE]
            cases.append(Case(op="reduce_log_sum", inputs={"x": abs(x)}, attributes=how))
            whole = rng.integers(-4, 5, (2, 3, 4)).astype(np.int32)
            cases += [
                Case(op=op, inputs={"x": whole}, attributes=how)
                for op in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
            ]
    for axis in (-1, 0, 1):
        for keep in (False, True):
            how = {"axis": axis, "keep_dims": keep}
            x = normal(rng, 2, 3, 4)
            cases += [
                Case(op=op, inputs={"x": x}, attributes=how)
                for op in ("reduce_argmax", "reduce_argmin")
            ]
    if opset >= 7:
        how = {"axis": 1, "output_dtype": "uint16"}
        cases.append(Case(op="reduce_argmax", inputs={"x": normal(rng, 2, 9)}, attributes=how))
    check_cases(cases, tmp_path, opset=opset)


def test_reducing_without_axes_reduces_them_all(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 2, 3)
    cases = [
        Case(op="reduce_sum", inputs={"x": x}, attributes={"keep_dims": True}),
        Case(op="reduce_mean", inputs={"x": x}, attributes={"keep_dims": True}),
    ]
    check_cases(cases, tmp_path)
