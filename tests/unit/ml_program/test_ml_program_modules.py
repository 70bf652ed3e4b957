"""Ordinary torch modules, converted by coremltools, give what torch gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ml_program_building import ct, mismatch, save
from ml_program_samples import SAMPLES, Sample

from validation.runtimes.ml_program.executable import load

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:Using padding")

# Both sides compute in float32 and differ in the order of sums only.
TOLERANCE = 1e-5


def convert(sample: Sample, folder: Path, precision: ct.precision) -> tuple[Path, torch.Tensor]:
    torch.manual_seed(0)
    module = sample.make().eval()
    with torch.no_grad():
        wanted = module(*sample.inputs)
        traced = torch.jit.trace(module, sample.inputs, check_trace=False)
    package = save(
        traced,
        folder / "module.mlpackage",
        precision=precision,
        inputs=[
            ct.TensorType(
                f"x{i}", given.shape, dtype=np.float32 if given.is_floating_point() else np.int32
            )
            for i, given in enumerate(sample.inputs)
        ],
        outputs=[ct.TensorType("y")],
    )
    return package, wanted


def feeds(sample: Sample) -> dict[str, np.ndarray]:
    return {
        f"x{i}": given.numpy() if given.is_floating_point() else given.numpy().astype(np.int32)
        for i, given in enumerate(sample.inputs)
    }


@pytest.mark.parametrize(
    "sample",
    [pytest.param(each, marks=() if each.fast else pytest.mark.full) for each in SAMPLES],
    ids=str,
)
def test_a_module_converted_in_float32_gives_what_torch_gives(
    sample: Sample, tmp_path: Path
) -> None:
    package, wanted = convert(sample, tmp_path, ct.precision.FLOAT32)
    found = load(package).run(feeds(sample))["y"]
    assert not mismatch(found, wanted.numpy(), TOLERANCE)


def test_there_are_at_least_sixty_modules_of_every_family() -> None:
    assert len(SAMPLES) >= 60
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)
    assert sum(sample.fast for sample in SAMPLES) >= 15
