"""Resizing and sampling against the documented grids and torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_program_building import Case, check_cases


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def grid_points(mode: str, size: int, wanted: int) -> list[float]:
    """The formulas of the documentation of `resize_bilinear`, one point at a time."""
    points = []
    for i in range(wanted):
        if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
            middle = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
            point = i * (size - 1) / (wanted - 1) if wanted > 1 else middle
        elif mode == "DEFAULT":
            point = i * (size - size / wanted) / (wanted - 1) if wanted > 1 else 0.0
        elif mode == "OFFSET_CORNERS":
            delta = max(1, size - 1) / wanted
            point = 0.5 * delta + i * delta
        else:
            point = i * size / wanted + 0.5 * size / wanted - 0.5
        points.append(min(size - 1, max(0.0, point)))
    return points


def interpolated(x: np.ndarray, sizes: tuple[int, int], mode: str) -> np.ndarray:
    for axis, wanted in zip((-2, -1), sizes, strict=True):
        columns = []
        for point in grid_points(mode, x.shape[axis], wanted):
            low = int(point)
            high = min(low + 1, x.shape[axis] - 1)
            share = point - low
            columns.append((1 - share) * x.take(low, axis) + share * x.take(high, axis))
        x = np.stack(columns, axis)
    return x


MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def test_bilinear_resizing_follows_the_documented_grids(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 4, 5)
    cases = []
    for mode in MODES:
        for height, width in ((7, 9), (2, 3), (1, 1), (4, 5)):
            cases.append(
                Case(
                    op="resize_bilinear",
                    inputs={"x": x},
                    attributes={
                        "target_size_height": height,
                        "target_size_width": width,
                        "sampling_mode": mode,
                    },
                    expected=lambda x, h=height, w=width, mode=mode: interpolated(x, (h, w), mode),
                )
            )
        cases.append(
            Case(
                op="resize",
                inputs={"x": x},
                attributes={
                    "shape": [0, 8],
                    "resized_dims": np.uint32(2),
                    "sampling_mode": mode,
                },
                expected=lambda x, mode=mode: interpolated(x, (4, 8), mode),
            )
        )
    check_cases(cases, tmp_path)


def test_upsampling_agrees_with_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 4, 5)
    cases = []
    for align in (False, True):
        for height, width in ((2, 3), (2.5, 1.4)):
            cases.append(
                Case(
                    op="upsample_bilinear",
                    inputs={"x": x},
                    attributes={
                        "scale_factor_height": height,
                        "scale_factor_width": width,
                        "align_corners": align,
                    },
                    expected=lambda x, h=height, w=width, align=align: F.interpolate(
                        torch.tensor(x),
                        size=(int(4 * h), int(5 * w)),
                        mode="bilinear",
                        align_corners=align,
                    ),
                )
            )
    for height, width in ((2, 3), (1, 4)):
        cases.append(
            Case(
                op="upsample_nearest_neighbor",
                inputs={"x": x},
                attributes={"scale_factor_height": height, "scale_factor_width": width},
                expected=lambda x, h=height, w=width: F.interpolate(
                    torch.tensor(x), scale_factor=(h, w), mode="nearest"
                ),
            )
        )
    for height, width in ((7, 10), (2, 3)):
        cases.append(
            Case(
                op="resize_nearest_neighbor",
                inputs={"x": x},
                attributes={"target_size_height": height, "target_size_width": width},
                expected=lambda x, h=height, w=width: F.interpolate(
                    torch.tensor(x), size=(h, w), mode="nearest"
                ),
            )
        )
    check_cases(cases, tmp_path)


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_sampling_at_coordinates_agrees_with_torch(sampling: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 6, 5)
    where = (rng.random((2, 4, 7, 2), dtype=np.float32) * 3 - 1.5).astype(np.float32)
    cases = []
    for padding, corners, name in (
        ("zeros", True, "constant"),
        ("zeros", False, "constant"),
        ("border", True, "border"),
        ("border", False, "border"),
        ("reflection", True, "reflection"),
        ("reflection", False, "symmetric"),
    ):
        how = {
            "sampling_mode": sampling,
            "padding_mode": name,
            "padding_value": 0.0,
            "coordinates_mode": "normalized_minus_one_to_one",
            "align_corners": corners,
        }

        def expected(
            x: np.ndarray, coordinates: np.ndarray, padding: str = padding, corners: bool = corners
        ) -> torch.Tensor:
            return F.grid_sample(
                torch.tensor(x), torch.tensor(coordinates), sampling, padding, corners
            )

        cases.append(
            Case(
                op="resample",
                inputs={"x": x, "coordinates": where},
                attributes=how,
                expected=expected,
            )
        )
        zero_to_one = {**how, "coordinates_mode": "normalized_zero_to_one"}
        cases.append(
            Case(
                op="resample",
                inputs={"x": x, "coordinates": (where + 1) / 2},
                attributes=zero_to_one,
                expected=lambda x, coordinates, expected=expected: expected(x, 2 * coordinates - 1),
                rtol=1e-4,
            )
        )
    check_cases(cases, tmp_path)


def test_sampling_at_pixel_coordinates_reads_those_pixels(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(0), 1, 2, 4, 5)
    pixels = np.array([[[[0, 0], [4, 3], [2, 1], [9, 9]]]], np.int32)
    case = Case(
        op="resample",
        inputs={"x": x, "coordinates": pixels},
        attributes={
            "sampling_mode": "bilinear",
            "padding_mode": "constant",
            "padding_value": 0.5,
            "coordinates_mode": "unnormalized",
            "align_corners": True,
        },
        expected=lambda x, coordinates: np.stack(
            [x[:, :, 0, 0], x[:, :, 3, 4], x[:, :, 1, 2], np.full((1, 2), 0.5, np.float32)], -1
        )[:, :, None],
    )
    check_cases([case], tmp_path)


def test_affine_transforms_agree_with_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, matrix = normal(rng, 2, 3, 6, 5), normal(rng, 2, 6)
    case = Case(
        op="affine",
        inputs={"x": x, "transform_matrix": matrix},
        attributes={
            "output_height": 4,
            "output_width": 7,
            "sampling_mode": "bilinear",
            "padding_mode": "constant",
            "padding_value": 0.0,
            "coordinates_mode": "normalized_minus_one_to_one",
            "align_corners": True,
        },
        expected=lambda x, transform_matrix: F.grid_sample(
            torch.tensor(x),
            F.affine_grid(torch.tensor(transform_matrix).reshape(2, 2, 3), [2, 3, 4, 7], True),
            align_corners=True,
        ),
    )
    check_cases([case], tmp_path)
