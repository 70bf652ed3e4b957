"""Moving between dimensions, padding, running sums, filling and sorting."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_program_building import Case, check_cases


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def depth_to_space(x: np.ndarray) -> np.ndarray:
    # TensorFlow's definition: the depth is [block row, block column, channel].
    y = np.zeros((2, 2, 8, 12), np.float32)
    for row in range(2):
        for column in range(2):
            y[:, :, row::2, column::2] = x[:, 2 * (2 * row + column) :][:, :2]
    return y


def space_to_depth(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[:, :, i::2, j::2] for i in range(2) for j in range(2)], 1)


def space_to_batch(x: np.ndarray) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 2)))
    return np.concatenate([x[:, :, i::2, j::4] for i in range(2) for j in range(4)])


def batch_to_space(x: np.ndarray) -> np.ndarray:
    y = np.zeros((1, 8, 8, 6), np.float32)
    for row in range(2):
        y[:, :, row::2] = x[row : row + 1]
    return y[:, :, 1:, :-2]


def test_elements_move_between_channels_space_and_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 8, 4, 6)
    cases = [
        Case(
            op="depth_to_space",
            inputs={"x": x},
            attributes={"block_size": 2},
            expected=depth_to_space,
        ),
        Case(
            op="space_to_depth",
            inputs={"x": x},
            attributes={"block_size": 2},
            expected=space_to_depth,
        ),
        Case(
            op="pixel_shuffle",
            inputs={"x": x},
            attributes={"upscale_factor": 2},
            expected=lambda x: F.pixel_shuffle(torch.tensor(x), 2),
        ),
        Case(
            op="pixel_unshuffle",
            inputs={"x": x},
            attributes={"downscale_factor": np.uint32(2)},
            expected=lambda x: F.pixel_unshuffle(torch.tensor(x), 2),
        ),
        Case(
            op="space_to_batch",
            inputs={"x": x},
            attributes={"block_shape": [2, 4], "paddings": [[1, 1], [0, 2]]},
            expected=space_to_batch,
        ),
        Case(
            op="batch_to_space",
            inputs={"x": x},
            attributes={"block_shape": [2, 1], "crops": [[1, 0], [0, 2]]},
            expected=batch_to_space,
        ),
    ]
    check_cases(cases, tmp_path)


def test_parts_are_cut_windowed_and_reversed(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 2, 8, 4, 6)
    cases = [
        Case(
            op="crop",
            inputs={"x": x},
            attributes={"crop_height": [1, 0], "crop_width": [2, 3]},
            expected=lambda x: x[:, :, 1:, 2:3],
        ),
        Case(
            op="sliding_windows",
            inputs={"x": x},
            attributes={"axis": 1, "size": 3, "stride": 2},
            expected=lambda x: np.stack([x[:, i : i + 3] for i in (0, 2, 4)], 1),
        ),
        Case(
            op="reverse_sequence",
            inputs={"x": x, "lengths": ints(3, 1)},
            attributes={"seq_axis": 1, "batch_axis": 0},
            expected=lambda x, lengths: np.stack(
                [
                    np.concatenate([part[:n][::-1], part[n:]])
                    for part, n in zip(x, lengths, strict=True)
                ]
            ),
        ),
    ]
    check_cases(cases, tmp_path)


def test_padding_agrees_with_coremltools_on_any_dimension(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 2, 3, 4, 5)
    cases = [
        Case(op="pad", inputs={"x": x}, attributes={"pad": pad, "mode": mode, "constant_val": 0.5})
        for mode in ("constant", "reflect", "replicate")
        for pad in ([1, 2], [0, 1, 2, 0], [1, 1, 0, 2, 3, 0, 0, 4])
        if mode != "reflect" or max(pad) < 4
    ]
    cases.append(
        Case(
            op="pad",
            inputs={"x": x},
            attributes={"pad": [1, 1, 2, 2, 3, 3, 4, 4], "mode": "replicate"},
        )
    )
    check_cases(cases, tmp_path)


def test_running_sums_and_bands_agree_with_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 3, 4, 5)
    cases = [
        *(
            Case(op="cumsum", inputs={"x": x}, attributes={"axis": axis, "reverse": reverse})
            for axis in (-1, 0, 1)
            for reverse in (False, True)
        ),
        Case(
            op="cumsum",
            inputs={"x": x},
            attributes={"axis": 1, "exclusive": True},
            expected=lambda x: np.cumsum(x, 1) - x,
            rtol=1e-5,
        ),
        Case(
            op="cumsum",
            inputs={"x": rng.integers(-9, 9, (3, 4)).astype(np.int32)},
            attributes={"axis": 1, "exclusive": True, "reverse": True},
            expected=lambda x: np.cumsum(x[:, ::-1], 1)[:, ::-1] - x,
        ),
        *(
            Case(op="band_part", inputs={"x": x}, attributes={"lower": lower, "upper": upper})
            for lower, upper in ((-1, 0), (0, -1), (0, 0), (1, 2), (-1, -1))
        ),
    ]
    check_cases(cases, tmp_path)


def test_filled_tensors_have_the_shape_they_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(
            op="fill",
            inputs={"shape": ints(2, 3)},
            attributes={"value": np.float32(0.5)},
            expected=lambda shape: np.full((2, 3), 0.5, np.float32),
        ),
        Case(
            op="fill",
            inputs={"shape": ints(2, 3)},
            attributes={"value": np.int32(7)},
            expected=lambda shape: np.full((2, 3), 7),
        ),
        Case(
            op="fill_like",
            inputs={"ref_tensor": normal(rng, 2, 3)},
            attributes={"value": np.int32(7)},
            expected=lambda ref_tensor: np.full((2, 3), 7),
        ),
        Case(
            op="one_hot",
            inputs={"indices": ints(0, 2, 5, 1)},
            attributes={"one_hot_vector_size": 4, "axis": 0, "on_value": 2.0, "off_value": -1.0},
            expected=lambda indices: np.where(np.arange(4)[:, None] == indices, 2.0, -1.0),
        ),
        Case(
            op="one_hot",
            inputs={"indices": ints(0, 2, 1)},
            attributes={"one_hot_vector_size": 3},
            expected=lambda indices: np.eye(3, dtype=np.int32)[indices],
        ),
        Case(
            op="non_zero",
            inputs={"x": np.array([[0, 1.5], [2, 0]], np.float32)},
            expected=lambda **given: np.argwhere(given["x"]),
        ),
    ]
    check_cases(cases, tmp_path)


@pytest.mark.parametrize("opset", [5, 6, 8])
def test_sorting_agrees_with_coremltools(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)
    x = normal(rng, 4, 5)
    cases = []
    for axis in (-1, 0):
        for ascending in (False, True):
            how = {"axis": axis, "ascending": ascending}
            cases.append(Case(op="topk", inputs={"x": x}, attributes={**how, "k": 3}))
            cases.append(Case(op="argsort", inputs={"x": x}, attributes=how))
    if opset >= 6:
        only = {"k": 2, "return_indices": False}
        cases.append(Case(op="topk", inputs={"x": x}, attributes=only))
    if opset >= 7:
        how = {"k": 2, "output_indices_dtype": "uint16"}
        cases.append(Case(op="topk", inputs={"x": x}, attributes=how))
    check_cases(cases, tmp_path, opset=opset)
