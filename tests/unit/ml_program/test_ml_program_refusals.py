"""What is not implemented is named, all of it, before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_program_building import TARGETS, ct, mb, save, types
from ml_program_editing import constant, edited, operations

from validation.runtimes.ml_program.errors import ExecutionError, UnsupportedOp
from validation.runtimes.ml_program.executable import load


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.GELU(), torch.nn.Conv2d(8, 4, 1)
    )
    return save(
        torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8)),
        tmp_path_factory.mktemp("refusals") / "model.mlpackage",
        inputs=[ct.TensorType("x", (1, 3, 8, 8))],
        outputs=[ct.TensorType("y")],
    )


def argument(model: Any, kind: str, name: str) -> Any:
    """The constant that the first op of a kind takes as a parameter."""
    return constant(model, operations(model, kind)[0].inputs[name].arguments[0].name)


def test_a_wrong_stride_is_an_error_that_names_op_and_shapes(package: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        values = argument(model, "conv", "strides").immediateValue.tensor.ints.values
        values[:] = [1, 1]

    wrong = load(edited(package, tmp_path / "stride", change))
    with pytest.raises(
        ExecutionError, match=r"conv \(.*\[1, 8, 8, 8\], declared fp32\[1, 8, 4, 4\]"
    ):
        wrong.run({"x": np.zeros((1, 3, 8, 8), np.float32)})


def test_values_an_op_cannot_take_are_an_error_that_names_op_and_shapes(
    package: Path, tmp_path: Path
) -> None:
    def change(model: Any) -> None:
        argument(model, "conv", "groups").immediateValue.tensor.ints.values[:] = [3]

    wrong = load(edited(package, tmp_path / "groups", change))
    with pytest.raises(ExecutionError, match=r"conv .*cannot be run on .*x \[\[1, 3, 8, 8\]\]"):
        wrong.run({"x": np.zeros((1, 3, 8, 8), np.float32)})


def set_kind(model: Any) -> None:
    operations(model, "gelu")[0].type = "frobnicate"


def set_mode(model: Any) -> None:
    argument(model, "gelu", "mode").immediateValue.tensor.strings.values[0] = "EXACTLY"


def set_pad_type(model: Any) -> None:
    argument(model, "conv", "pad_type").immediateValue.tensor.strings.values[0] = "circular"


def add_parameter(model: Any) -> None:
    gelu = operations(model, "gelu")[0]
    gelu.inputs["scale"].CopyFrom(gelu.inputs["mode"])


def drop_parameter(model: Any) -> None:
    del operations(model, "conv")[0].inputs["weight"]


def set_result_type(model: Any) -> None:
    operations(model, "gelu")[0].outputs[0].type.tensorType.dataType = 13  # BFLOAT16


def set_other_result_type(model: Any) -> None:
    operations(model, "gelu")[0].outputs[0].type.tensorType.dataType = 23  # INT32


def make_strides_a_variable(model: Any) -> None:
    operations(model, "conv")[0].inputs["strides"].arguments[0].name = "x"


def refer_to_nothing(model: Any) -> None:
    operations(model, "gelu")[0].inputs["x"].arguments[0].name = "nowhere"


def set_opset(model: Any) -> None:
    function = model.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    function.block_specializations["CoreML99"].CopyFrom(block)
    function.opset = "CoreML99"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_kind, r"frobnicate \(.*\): the op is not implemented"),
        (set_mode, r"gelu \(.*\): mode 'EXACTLY' is none of EXACT, TANH_APPROXIMATION"),
        (set_pad_type, r"conv \(.*\): pad_type 'circular' is none of valid, same"),
        (add_parameter, r"gelu \(.*\): parameter 'scale' is not implemented"),
        (drop_parameter, r"conv \(.*\): parameter 'weight' is missing"),
        (set_result_type, r"gelu \(.*\): result '.*' has type bf16"),
        (set_other_result_type, r"gelu \(.*\): its result is declared int32, not fp32"),
        (make_strides_a_variable, r"conv \(.*\): parameter 'strides' is not constant"),
        (refer_to_nothing, r"gelu \(.*\): 'nowhere' is not defined before it is used"),
        (set_opset, r"opset 'CoreML99' is none of CoreML5 .. CoreML9"),
    ],
)
def test_what_is_not_implemented_is_named_when_loading(
    change: Callable[[Any], None], message: str, package: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOp, match=message):
        load(edited(package, tmp_path / "changed", change))


def test_everything_that_is_not_implemented_is_named_at_once(package: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        set_kind(model)
        for conv in operations(model, "conv"):
            conv.type = "convolve"

    with pytest.raises(UnsupportedOp) as caught:
        load(edited(package, tmp_path / "changed", change))
    assert "frobnicate" in caught.value.message
    assert "convolve" in caught.value.message
    assert "and 1 more" in caught.value.message
    assert "main" in caught.value.message


def test_an_op_newer_than_the_opset_is_refused(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 2, 4))], opset_version=TARGETS[8])
    def program(x: Any) -> Any:
        return mb.scaled_dot_product_attention(query=x, key=x, value=x)

    saved = save(program, tmp_path / "attention.mlpackage")

    def change(model: Any) -> None:
        function = model.mlProgram.functions["main"]
        function.block_specializations["CoreML7"].CopyFrom(
            function.block_specializations["CoreML8"]
        )
        function.opset = "CoreML7"

    with pytest.raises(UnsupportedOp, match="the op comes with opset CoreML8"):
        load(edited(saved, tmp_path / "older", change))


def test_recurrent_and_random_ops_are_refused_by_name(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(3, 2, 4))], opset_version=TARGETS[8])
    def program(x: Any) -> Any:
        noise = mb.random_normal(shape=np.array([3, 2, 4], np.int32))
        return mb.add(x=x, y=noise), mb.l2_pool(x=x, kernel_sizes=[2], pad_type="valid")

    saved = save(program, tmp_path / "random.mlpackage", passes=ct.PassPipeline.EMPTY)
    with pytest.raises(UnsupportedOp) as caught:
        load(saved)
    assert "random_normal" in caught.value.message
    assert "l2_pool" in caught.value.message


def test_dividing_integers_is_refused_because_nobody_says_what_it_gives(tmp_path: Path) -> None:
    @mb.program(
        input_specs=[mb.TensorSpec(shape=(3,), dtype=types.int32)], opset_version=TARGETS[8]
    )
    def program(x: Any) -> Any:
        return mb.real_div(x=x, y=np.int32(2))

    saved = save(program, tmp_path / "divide.mlpackage", passes=ct.PassPipeline.EMPTY)
    with pytest.raises(UnsupportedOp, match=r"real_div .*parameter 'x' has type int32"):
        load(saved)


def test_classifiers_are_refused_as_such(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Softmax(-1))
    package = save(
        torch.jit.trace(module.eval(), torch.zeros(1, 4)),
        tmp_path / "classes.mlpackage",
        inputs=[ct.TensorType("x", (1, 4))],
        classifier_config=ct.ClassifierConfig(["a", "b", "c"]),
    )
    with pytest.raises(UnsupportedOp, match=r"classes.mlpackage.*is of kind") as caught:
        load(package)
    assert "classifiers are not" in caught.value.hint
