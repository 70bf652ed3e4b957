"""Convolutions and poolings against torch, over strides, dilations, groups and paddings."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_program_building import Case, check_cases
from torch import Tensor

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def same_pads(
    sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int], *, lower: bool
) -> list[int]:
    """TensorFlow's SAME: the output is ceil(size / stride) long."""
    pads = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + window - size)
        pads += [total - total // 2, total // 2] if lower else [total // 2, total - total // 2]
    return pads


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    pairs = list(zip(pads[::2], pads[1::2], strict=True))
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=value)


def conv_case(rng: np.random.Generator, spatial: int, pad_type: str, *, bias: bool = True) -> Case:
    groups = int(rng.choice([1, 2, 4]))
    strides = [int(rng.integers(1, 4)) for _ in range(spatial)]
    dilations = [int(rng.integers(1, 3)) for _ in range(spatial)]
    kernel = [int(rng.integers(1, 5)) for _ in range(spatial)]
    sizes = [int(rng.integers(9, 13)) for _ in range(spatial)]
    weight = normal(rng, 8, 4 // groups, *kernel)
    offset = normal(rng, 8) if bias else None
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    custom = [int(rng.integers(0, 3)) for _ in range(2 * spatial)]
    pads = {"valid": [0] * (2 * spatial), "custom": custom}.get(pad_type) or same_pads(
        sizes, windows, strides, lower=pad_type == "same_lower"
    )

    def expected(x: np.ndarray) -> Tensor:
        return CONV[spatial](
            padded(torch.tensor(x), pads),
            torch.tensor(weight),
            None if offset is None else torch.tensor(offset),
            stride=strides,
            dilation=dilations,
            groups=groups,
        )

    attributes = {
        "weight": weight,
        "strides": strides,
        "dilations": dilations,
        "groups": groups,
        "pad_type": pad_type,
    }
    if offset is not None:
        attributes["bias"] = offset
    if pad_type == "custom":
        attributes["pad"] = custom
    x = normal(rng, 2, 4, *sizes)
    return Case(op="conv", inputs={"x": x}, attributes=attributes, expected=expected)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolutions_of_every_padding_group_and_dilation_agree_with_torch(
    spatial: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(spatial)
    kinds = ("valid", "custom", "same", "same_lower")
    cases = [conv_case(rng, spatial, kind, bias=bool(i % 2)) for i in range(5) for kind in kinds]
    check_cases(cases, tmp_path)


def test_depthwise_convolutions_agree_with_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for multiple in (1, 2):
        weight = normal(rng, 6 * multiple, 1, 3, 3)
        cases.append(
            Case(
                op="conv",
                inputs={"x": normal(rng, 1, 6, 7, 8)},
                attributes={
                    "weight": weight,
                    "groups": 6,
                    "pad_type": "custom",
                    "pad": [1, 1, 1, 1],
                },
                expected=lambda x, weight=weight: F.conv2d(
                    torch.tensor(x), torch.tensor(weight), padding=1, groups=6
                ),
            )
        )
    check_cases(cases, tmp_path, opset=5)


def test_a_weight_computed_at_run_time_is_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    case = Case(
        op="conv",
        inputs={"x": normal(rng, 1, 3, 6, 6), "weight": normal(rng, 5, 3, 2, 2)},
        attributes={"pad_type": "valid"},
        expected=lambda x, weight: F.conv2d(torch.tensor(x), torch.tensor(weight)),
    )
    check_cases([case], tmp_path)


def transpose_case(rng: np.random.Generator, spatial: int, pad_type: str) -> Case:
    groups = int(rng.choice([1, 2]))
    strides = [int(rng.integers(1, 4)) for _ in range(spatial)]
    dilations = [int(rng.integers(1, 3)) for _ in range(spatial)]
    kernel = [int(rng.integers(2, 5)) for _ in range(spatial)]
    sizes = [int(rng.integers(4, 7)) for _ in range(spatial)]
    weight = normal(rng, 4, 6 // groups, *kernel)
    bias = normal(rng, 6)
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    custom = [int(rng.integers(0, 2)) for _ in range(2 * spatial)]
    attributes = {
        "weight": weight,
        "bias": bias,
        "strides": strides,
        "dilations": dilations,
        "groups": groups,
        "pad_type": pad_type,
    }
    if pad_type == "custom":
        attributes["pad"] = custom

    def expected(x: np.ndarray) -> Tensor:
        whole = TRANSPOSE[spatial](
            torch.tensor(x),
            torch.tensor(weight),
            torch.tensor(bias),
            stride=strides,
            dilation=dilations,
            groups=groups,
        )
        for i, (size, window, stride) in enumerate(zip(sizes, windows, strides, strict=True)):
            before, after = (custom[2 * i : 2 * i + 2]) if pad_type == "custom" else (0, 0)
            length = whole.shape[i + 2] - before - after
            if pad_type == "same":
                before, length = max(0, window - stride) // 2, size * stride
            whole = whole.narrow(i + 2, before, length)
        return whole

    x = normal(rng, 2, 4, *sizes)
    return Case(op="conv_transpose", inputs={"x": x}, attributes=attributes, expected=expected)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_transposed_convolutions_agree_with_torch(spatial: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(spatial)
    cases = [transpose_case(rng, spatial, kind) for _ in range(5) for kind in ("valid", "custom")]
    # "same" where the kernel covers its stride, so that torch's own result is long enough.
    while len(cases) < 14:
        case = transpose_case(rng, spatial, "same")
        kernel = case.attributes["weight"].shape[2:]
        windows = [
            (k - 1) * d + 1 for k, d in zip(kernel, case.attributes["dilations"], strict=True)
        ]
        if all(w >= s for w, s in zip(windows, case.attributes["strides"], strict=True)):
            cases.append(case)
    check_cases(cases, tmp_path)


def test_an_output_shape_longer_than_the_kernel_reaches_is_filled_with_the_bias(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    weight, bias = normal(rng, 3, 2, 3, 3), normal(rng, 2)
    case = Case(
        op="conv_transpose",
        inputs={"x": normal(rng, 1, 3, 4, 4)},
        attributes={
            "weight": weight,
            "bias": bias,
            "strides": [2, 2],
            "pad_type": "custom",
            "pad": [1, 1, 1, 1],
            "output_shape": [1, 2, 8, 8],
        },
        expected=lambda x: F.conv_transpose2d(
            torch.tensor(x),
            torch.tensor(weight),
            torch.tensor(bias),
            stride=2,
            padding=1,
            output_padding=1,
        ),
    )
    check_cases([case], tmp_path)


def pool_case(rng: np.random.Generator, op: str, spatial: int, pad_type: str) -> Case:
    kernel = [int(rng.integers(2, 5)) for _ in range(spatial)]
    strides = [int(rng.integers(1, 4)) for _ in range(spatial)]
    sizes = [int(rng.integers(9, 13)) for _ in range(spatial)]
    # A window of nothing but padding has no average: paddings stay below the kernel.
    custom = [int(rng.integers(0, min(kernel))) for _ in range(2 * spatial)]
    pads = {"valid": [0] * (2 * spatial), "custom": custom}.get(pad_type) or same_pads(
        sizes, kernel, strides, lower=pad_type == "same_lower"
    )
    exclude = bool(rng.integers(2))
    attributes = {"kernel_sizes": kernel, "strides": strides, "pad_type": pad_type}
    if pad_type == "custom":
        attributes["pad"] = custom
    if op == "avg_pool":
        attributes["exclude_padding_from_average"] = exclude

    def expected(x: np.ndarray) -> Tensor:
        given = torch.tensor(x)
        if op == "max_pool":
            return MAX[spatial](padded(given, pads, -math.inf), kernel, strides)
        total = AVERAGE[spatial](padded(given, pads), kernel, strides)
        if not exclude:
            return total
        return total / AVERAGE[spatial](padded(torch.ones_like(given), pads), kernel, strides)

    return Case(
        op=op, inputs={"x": normal(rng, 2, 3, *sizes)}, attributes=attributes, expected=expected
    )


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_poolings_of_every_padding_agree_with_torch(op: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    kinds = ("valid", "custom", "same", "same_lower")
    cases = [
        pool_case(rng, op, spatial, kind) for spatial in (1, 2, 3) for kind in kinds for _ in "ab"
    ]
    check_cases(cases, tmp_path)


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_ceil_mode_keeps_the_last_partial_window(op: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for pad in (0, 1):
        attributes = {
            "kernel_sizes": [3, 3],
            "strides": [2, 2],
            "pad_type": "custom",
            "pad": [pad] * 4,
            "ceil_mode": True,
        }
        pool = F.max_pool2d if op == "max_pool" else F.avg_pool2d
        cases.append(
            Case(
                op=op,
                inputs={"x": normal(rng, 1, 2, 8, 10)},
                attributes=attributes,
                expected=lambda x, pad=pad, pool=pool: pool(
                    torch.tensor(x), 3, 2, padding=pad, ceil_mode=True
                ),
            )
        )
    check_cases(cases, tmp_path)


def test_a_wrong_stride_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = normal(rng, 4, 3, 3, 3)
    wrong = Case(
        op="conv",
        inputs={"x": normal(rng, 1, 3, 9, 9)},
        attributes={"weight": weight, "strides": [2, 2], "pad_type": "valid"},
        expected=lambda x: F.conv2d(torch.tensor(x), torch.tensor(weight), stride=1),
    )
    with pytest.raises(AssertionError, match="shape"):
        check_cases([wrong], tmp_path)
