"""Two packages side by side: the first place where they differ is found and named."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_program_building import ct, save
from ml_program_editing import constant, edited, operations

from validation.runtimes.ml_program.compare import compare, difference
from validation.runtimes.ml_program.errors import InputError
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program.interface import drawn


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.nn.functional.gelu(layer(x))
        return x


def convert(path: Path, precision: ct.precision) -> Path:
    torch.manual_seed(0)
    return save(
        torch.jit.trace(Net().eval(), torch.zeros(2, 8)),
        path,
        precision=precision,
        inputs=[ct.TensorType("x", (2, 8))],
        outputs=[ct.TensorType("y")],
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("compare") / "a.mlpackage", ct.precision.FLOAT32)


def other_gelu(model: Any) -> None:
    """Every use of one mode constant but the third."""
    third = operations(model, "gelu")[2]
    mode = constant(model, third.inputs["mode"].arguments[0].name)
    mode.immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"


def test_a_package_does_not_diverge_from_itself(package: Path) -> None:
    one = load(package)
    found = compare(one, load(package), drawn(one.function, seed=0), tolerance=0.0)
    assert found.first_divergence is None
    assert len(found.rows) == len(one.value_names) == 8
    assert all(row.relative_l2 == 0.0 for row in found.rows)


def test_the_first_op_that_differs_is_named(package: Path, tmp_path: Path) -> None:
    first, second = load(package), load(edited(package, tmp_path / "b", other_gelu))
    found = compare(first, second, drawn(first.function, seed=0), tolerance=1e-6)
    third = [step.name for step in found.rows if step.kind == "gelu"][2]
    assert found.first_divergence is not None
    assert found.first_divergence.name == third
    before = found.rows[: found.rows.index(found.first_divergence)]
    assert all(row.relative_l2 == 0.0 for row in before)


def test_precisions_are_matched_although_casts_rename_values(package: Path, tmp_path: Path) -> None:
    half = load(convert(tmp_path / "half.mlpackage", ct.precision.FLOAT16))
    whole = load(package)
    found = compare(whole, half, drawn(whole.function, seed=0), rounding="fp16", tolerance=1e-2)
    assert found.first_divergence is None
    assert [row.kind for row in found.rows] == ["linear", "gelu"] * 4
    assert all(row.kind == row.other_kind for row in found.rows)
    assert any(row.name != row.other_name for row in found.rows)
    assert max(row.relative_l2 for row in found.rows) > 1e-5
    strict = compare(whole, half, drawn(whole.function, seed=0), rounding="fp16", tolerance=1e-7)
    assert strict.first_divergence == found.rows[0]


def test_packages_without_common_values_are_refused(package: Path, tmp_path: Path) -> None:
    def rename(model: Any) -> None:
        block = model.mlProgram.functions["main"].block_specializations["CoreML8"]
        for op in block.operations:
            for output in op.outputs:
                output.name = f"other_{output.name}"
            for argument in op.inputs.values():
                for binding in argument.arguments:
                    if binding.name != "x":
                        binding.name = f"other_{binding.name}"
        block.outputs[0] = "other_y"
        model.description.output[0].name = "other_y"
        for op in operations(model, "linear"):
            op.outputs[0].type.tensorType.dimensions[0].unknown.variadic = False
        for op in operations(model, "gelu"):
            op.outputs[0].type.tensorType.dimensions[0].unknown.variadic = False

    one, other = load(package), load(edited(package, tmp_path / "renamed", rename))
    with pytest.raises(InputError, match="no value in common"):
        compare(one, other, drawn(one.function, seed=0))


def test_differences_are_infinite_for_shapes_and_non_finite_elements() -> None:
    one = torch.tensor([1.0, 2.0, math.inf])
    assert difference(one, one) == (0.0, 0.0)
    assert difference(one, one[:2]) == (math.inf, math.inf)
    assert difference(one, torch.tensor([1.0, 2.0, -math.inf])) == (math.inf, math.inf)
    assert difference(one, torch.tensor([1.0, math.nan, math.inf])) == (math.inf, math.inf)
    assert difference(torch.tensor([1.0]), torch.tensor([0.0])) == (math.inf, 1.0)
    relative, largest = difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
    assert relative == pytest.approx(0.1)
    assert largest == pytest.approx(0.5)


def test_half_precision_inputs_are_made_where_the_second_package_takes_them(
    package: Path, tmp_path: Path
) -> None:
    half = convert(tmp_path / "half.mlpackage", ct.precision.FLOAT16)
    first = load(package)
    x = {"x": np.full((2, 8), 0.1, np.float32)}
    found = compare(first, load(half), x, tolerance=1e-2)
    assert found.first_divergence is None
