"""`coreml run`, `coreml inspect` and `coreml diff`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from ml_program_building import ct, save
from ml_program_editing import edited, operations

from fastvlm_compile.commands.coreml import coreml
from fastvlm_compile.errors import OutputError
from validation.runtimes.ml_program.errors import InputError, PackageError, UnsupportedOp


def call(*arguments: object) -> Result:
    return CliRunner().invoke(coreml, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.Flatten())
    return save(
        torch.jit.trace(module.eval(), torch.zeros(1, 3, 6, 6)),
        tmp_path_factory.mktemp("command") / "net.mlpackage",
        precision=ct.precision.FLOAT16,
        inputs=[ct.TensorType("x", (1, 3, 6, 6))],
        outputs=[ct.TensorType("y")],
    )


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float16)
    np.savez(tmp_path / "inputs.npz", x=x)
    return tmp_path / "inputs.npz"


def test_a_package_is_run_from_file_to_file(package: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    result = call("run", package, "--inputs", inputs, "--outputs", out, "--rounding", "fp16")
    assert result.exit_code == 0, result.output
    with np.load(out) as arrays:
        assert arrays["y"].shape == (1, 128)
        assert arrays["y"].dtype == np.float16
    assert "y: float16 [1, 128]" in result.output
    assert "non-finite: none" in result.output
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_run_told_as_json_says_that_core_ml_had_no_part(
    package: Path, inputs: Path, tmp_path: Path
) -> None:
    result = call("run", package, "--inputs", inputs, "--outputs", tmp_path / "o.npz", "--json")
    told = json.loads(result.output)
    assert told["executed_by_core_ml"] is False
    assert told["outputs"] == {"y": {"dtype": "float32", "shape": [1, 128]}}
    assert set(told["seconds_by_op"]) >= {"conv", "gelu"}
    assert told["non_finite"] == told["near_overflow"] == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--inputs", "nowhere.npz"), InputError, "nowhere.npz is not readable as .npz"),
        (("--inputs", "{package}/Manifest.json"), InputError, "is not readable as .npz"),
        (("--inputs", "{inputs}", "--function", "f"), PackageError, "has no function 'f'"),
        (("--inputs", "{inputs}", "--keep", "q"), InputError, "no value is called q"),
        (("--inputs", "{inputs}", "--outputs", "/nowhere/o.npz"), OutputError, "cannot be written"),
    ],
)
def test_mistakes_are_told_as_such(
    arguments: tuple[str, ...], error: type[Exception], message: str, package: Path, inputs: Path
) -> None:
    filled = [each.format(package=package, inputs=inputs) for each in arguments]
    result = call("run", package, "--outputs", inputs.parent / "o.npz", *filled)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_a_package_is_inspected(package: Path, tmp_path: Path) -> None:
    result = call("inspect", package)
    assert result.exit_code == 0, result.output
    assert "function main (CoreML8, default)" in result.output
    assert "input x: fp16 [1, 3, 6, 6]" in result.output
    assert "output y: fp16 [1, 128]" in result.output
    assert "3 ops: conv 1, gelu 1, reshape 1" in result.output
    assert "fp16 (1)" in result.output
    assert "known Neural Engine obstacles: none" in result.output


def test_weights_are_told_by_kind_of_compression(package: Path, tmp_path: Path) -> None:
    config = cto.OptimizationConfig(
        cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    )
    model = ct.models.MLModel(str(package), skip_model_load=True)
    cto.palettize_weights(model, config).save(str(tmp_path / "small.mlpackage"))
    told = json.loads(call("inspect", tmp_path / "small.mlpackage", "--json").output)
    kinds = {kind["kind"]: kind for kind in told["weights"]}
    assert kinds["palette uint4"]["size_bytes"] == 8 * 27 // 2 + 2 * 16
    assert told["functions"][0]["ops"]["constexpr_lut_to_dense"] == 1


def test_obstacles_of_the_neural_engine_are_listed(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x.reshape(1, 2, 2, 2, -1).transpose(1, 3))

    side = ct.RangeDim(1, 20000, default=16)
    package = save(
        torch.jit.trace(Net(), torch.zeros(1, 8, 16)),
        tmp_path / "net.mlpackage",
        inputs=[ct.TensorType("x", ct.Shape((1, 8, side)))],
    )
    told = json.loads(call("inspect", package, "--json").output)["neural_engine_obstacles"]
    rules = {obstacle["what"] for obstacle in told}
    assert "values of rank 5 or more" in rules
    assert "ops in float32" in rules
    assert "an input with a range of shapes, neither fixed nor enumerated" in rules


def test_equal_packages_do_not_diverge_and_others_end_with_exit_code_1(
    package: Path, tmp_path: Path
) -> None:
    same = call("diff", package, package)
    assert same.exit_code == 0, same.output
    assert "no divergence" in same.output

    def other_mode(model: Any) -> None:
        for op in operations(model, "const"):
            texts = op.attributes["val"].immediateValue.tensor.strings.values
            if list(texts) == ["EXACT"]:
                texts[0] = "SIGMOID_APPROXIMATION"

    changed = edited(package, tmp_path / "changed.mlpackage", other_mode)
    result = call("diff", package, changed)
    assert result.exit_code == 1
    assert "they diverge first at gelu" in result.output
    told = json.loads(call("diff", package, changed, "--json").output)
    assert told["first_divergence"]["kind"] == "gelu"
    assert told["executed_by_core_ml"] is False


def test_what_cannot_be_executed_is_named(package: Path, inputs: Path, tmp_path: Path) -> None:
    def unknown(model: Any) -> None:
        operations(model, "gelu")[0].type = "frobnicate"

    changed = edited(package, tmp_path / "changed.mlpackage", unknown)
    result = call("run", changed, "--inputs", inputs, "--outputs", tmp_path / "o.npz")
    assert isinstance(result.exception, UnsupportedOp)
    assert call("inspect", changed).exit_code == 0


def test_inspecting_needs_neither_torch_nor_coremltools(package: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from validation.runtimes.ml_program.summary import summarize;"
        f"summarize(Path({str(package)!r}));"
        "assert not {'torch', 'coremltools', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_running_needs_no_coremltools(package: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from validation.runtimes.ml_program.executable import load;"
        f"load(Path({str(package)!r})).run({{'x': np.zeros((1, 3, 6, 6), np.float16)}});"
        "assert not {'coremltools', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
