"""Running a package: inputs are checked, intermediates kept, rounding done right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_program_building import ct, save
from ml_program_editing import edited

from validation.runtimes.ml_program.errors import InputError
from validation.runtimes.ml_program.executable import Executable, load
from validation.runtimes.ml_program.interface import drawn
from validation.runtimes.ml_program.plan import used


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.LayerNorm(8)
        self.linear = torch.nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(self.conv(x)).flatten(2).transpose(1, 2)
        return torch.softmax(self.linear(self.norm(y)), -1)


def convert(
    folder: Path,
    *,
    precision: ct.precision = ct.precision.FLOAT32,
    shape: Any = (1, 3, 8, 8),
    opset: int = 8,
) -> Path:
    torch.manual_seed(0)
    example = torch.zeros(shape if isinstance(shape, tuple) else (1, 3, 8, 8))
    return save(
        torch.jit.trace(Net().eval(), example),
        folder / "net.mlpackage",
        precision=precision,
        opset=opset,
        inputs=[ct.TensorType("x", shape)],
        outputs=[ct.TensorType("y")],
    )


def image(size: int = 8, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, size, size), dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def net(folder: Path) -> Executable:
    return load(convert(folder))


@pytest.fixture(scope="module")
def half(folder: Path) -> Executable:
    (folder / "half").mkdir()
    return load(convert(folder / "half", precision=ct.precision.FLOAT16))


def test_the_interface_is_told(net: Executable) -> None:
    assert net.functions == ("main",)
    assert [(f.name, f.dtype.value, str(f.shape)) for f in net.inputs] == [
        ("x", "fp32", "[1, 3, 8, 8]")
    ]
    assert [(f.name, str(f.shape)) for f in net.outputs] == [("y", "[1, 64, 16]")]
    assert net.states == ()


@pytest.mark.parametrize("opset", [5, 6, 7, 9])
def test_every_opset_from_ios15_to_ios26_is_read(
    opset: int, net: Executable, tmp_path: Path
) -> None:
    found = load(convert(tmp_path, opset=opset))
    assert found.function.opset == f"CoreML{opset}"
    np.testing.assert_allclose(found.run({"x": image()})["y"], net.run({"x": image()})["y"], 1e-5)


def test_each_value_is_freed_once_and_after_its_last_use(net: Executable) -> None:
    block = net._plan.block
    freed: set[str] = set()
    for step, ending in zip(block.steps, block.frees, strict=True):
        assert not freed & set(used(step))
        assert not freed & set(ending)
        freed.update(ending)
    assert freed == {"x", *net.value_names} - {"y"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": image(), "z": image()}, "there is no input 'z'"),
        ({"x": image(9)}, r"has shape \[1, 3, 9, 9\], allowed is \[1, 3, 8, 8\]"),
        ({"x": image().astype(np.float64)}, r"is float64, not f4 \(fp32\)"),
        ({"x": image()[0]}, r"has shape \[3, 8, 8\]"),
    ],
)
def test_wrong_inputs_are_refused_with_the_declaration(
    inputs: dict[str, np.ndarray], message: str, net: Executable
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        net.run(inputs)
    assert "x: fp32 [1, 3, 8, 8]" in caught.value.hint


def test_intermediate_values_are_kept_by_name(net: Executable) -> None:
    names = net.value_names
    found = net.run({"x": image()}, keep=names[:3])
    assert set(found) == {"y", *names[:3]}
    assert np.array_equal(found["y"], net.run({"x": image()})["y"])
    with pytest.raises(InputError, match="no value is called nonsense"):
        net.run({"x": image()}, keep=["nonsense"])


def test_rounding_touches_half_precision_programs_only(net: Executable, half: Executable) -> None:
    x = image()
    assert np.array_equal(net.run({"x": x})["y"], net.run({"x": x}, rounding="fp16")["y"])
    small = x.astype(np.float16)
    exact, rounded = half.run({"x": small})["y"], half.run({"x": small}, rounding="fp16")["y"]
    assert exact.dtype == np.float32
    assert rounded.dtype == np.float16
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 5e-3
    wanted = net.run({"x": small.astype(np.float32)})["y"]
    assert np.linalg.norm(exact - wanted) < np.linalg.norm(rounded - wanted)


def test_every_value_of_a_rounded_run_is_a_half_precision_number(half: Executable) -> None:
    found = half.run({"x": image().astype(np.float16)}, rounding="fp16", keep=half.value_names)
    assert all(array.dtype != np.float32 for array in found.values())
    with pytest.raises(InputError, match="rounding 'bf16' is none of none, fp16"):
        half.run({"x": image().astype(np.float16)}, rounding="bf16")  # type: ignore[arg-type] - the point


def test_enumerated_shapes_take_each_of_them_and_no_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shapes = [(1, 3, 8, 8), (1, 3, 12, 12), (1, 3, 16, 8)]
    net = load(convert(tmp_path, shape=ct.EnumeratedShapes(shapes, default=shapes[1])))
    torch.manual_seed(0)
    reference = Net().eval()
    assert "[1, 3, 8, 8]" in str(net.inputs[0].shape)
    assert drawn(net.function, seed=0)["x"].shape == shapes[1]
    for shape in shapes:
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        with torch.no_grad():
            wanted = reference(torch.tensor(x)).numpy()
        np.testing.assert_allclose(net.run({"x": x})["y"], wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="allowed is"):
        net.run({"x": image(10)})


def test_ranges_of_shapes_are_kept_to(tmp_path: Path) -> None:
    side = ct.RangeDim(4, 12, default=8)
    net = load(convert(tmp_path, shape=ct.Shape((1, 3, side, side))))
    assert str(net.inputs[0].shape) == "[1, 3, 4..12, 4..12]"
    for size in (4, 7, 12):
        assert net.run({"x": image(size)})["y"].shape == (1, size * size, 16)
    with pytest.raises(InputError, match=r"allowed is \[1, 3, 4..12"):
        net.run({"x": image(13)})


def test_inputs_that_may_be_left_out_take_their_default(net: Executable, tmp_path: Path) -> None:
    def make_optional(model: Any) -> None:
        model.description.input[0].type.isOptional = True
        model.description.input[0].type.multiArrayType.floatDefaultValue = 0.5

    optional = load(edited(net.path, tmp_path / "optional", make_optional))
    filled = {"x": np.full((1, 3, 8, 8), 0.5, np.float32)}
    assert np.array_equal(optional.run({})["y"], net.run(filled)["y"])
