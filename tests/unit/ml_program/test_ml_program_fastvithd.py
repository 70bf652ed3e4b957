"""The vision tower itself, small: what the package computes is what the reference computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ml_program_building import ct, mismatch, save

from reference.fastvithd import FastViTHD
from reference.loading import load as load_checkpoint
from validation.runtimes.ml_program.executable import Executable, load


@pytest.fixture(scope="module")
def tower(random_checkpoint: Path) -> FastViTHD:
    return load_checkpoint(random_checkpoint).vision


def convert(tower: FastViTHD, path: Path, precision: ct.precision) -> Executable:
    example = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():
        traced = torch.jit.trace(tower, example, check_trace=False)
    given = ct.TensorType("images", example.shape, dtype=np.float32)
    outputs = [ct.TensorType("features", dtype=np.float32)]
    return load(save(traced, path, precision=precision, inputs=[given], outputs=outputs))


def test_in_float32_the_package_gives_what_the_reference_gives(
    tower: FastViTHD, tmp_path: Path
) -> None:
    package = convert(tower, tmp_path / "tower.mlpackage", ct.precision.FLOAT32)
    image = np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)
    with torch.no_grad():
        wanted = tower(torch.tensor(image)).numpy()
    found = package.run({"images": image})["features"]
    assert not mismatch(found, wanted, 1e-5)
    wrong = package.run({"images": image[:, ::-1]})["features"]
    assert mismatch(wrong, wanted, 1e-2)


def test_in_float16_rounding_costs_precision_and_the_stored_weights_less(
    tower: FastViTHD, tmp_path: Path
) -> None:
    package = convert(tower, tmp_path / "tower.mlpackage", ct.precision.FLOAT16)
    image = np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)
    with torch.no_grad():
        wanted = tower(torch.tensor(image)).numpy()
    errors = {}
    for rounding in ("none", "fp16"):
        found = package.run({"images": image}, rounding=rounding)["features"]
        errors[rounding] = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 1e-5 < errors["none"] < errors["fp16"] < 2e-2
