"""The vision graph computes what the reference computes, from weights bound by name."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_helpers import Graph, relative_l2, vision_config

from fastvlm_compile.export.batch_norm import fold_batch_norm
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx import export as export_module
from fastvlm_compile.export.onnx import simplify as simplify_module
from fastvlm_compile.export.onnx.export import export_vision
from fastvlm_compile.export.onnx.simplify import check_same_outputs
from fastvlm_compile.export.onnx.vision import bind, meta_module, trace_vision
from fastvlm_compile.export.onnx.vision_module import bind_vision
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint
from reference.fastvithd import ConvNorm
from reference.fastvlm import FastVLM

LIMIT = 1e-5


@pytest.fixture(scope="session")
def vision_graph(exported: Path) -> Path:
    return exported / "vision_encoder.onnx"


def run_reference(model: FastVLM, pixels: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.encode_image(pixels).numpy()


@pytest.fixture(scope="session")
def traced(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The traced graph, for the tests that bind it. Do not change it."""
    config = vision_config(checkpoint)
    module = meta_module(config.vision, config.hidden_size)
    return trace_vision(module, config.vision, opset=config.opset)


@pytest.mark.parametrize("batch", [1, 3])
def test_features_equal_the_reference_for_any_number_of_images(
    vision_graph: Path, reference: FastVLM, batch: int
) -> None:
    size = reference.config.vision.image_size
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
    found = Graph.open(vision_graph).run({"pixel_values": pixels.numpy()})["image_features"]
    expected = run_reference(reference, pixels)
    assert relative_l2(found, expected) <= LIMIT
    # Negative control: another image is another answer.
    assert not relative_l2(found, run_reference(reference, pixels.flip(-1))) <= 100 * LIMIT


def test_the_graph_holds_no_batch_norm_no_casts_and_no_sequences(vision_graph: Path) -> None:
    ops = Counter(node.op_type for node in onnx.load(str(vision_graph)).graph.node)
    expected = {
        "Add",
        "Constant",
        "Conv",
        "Gelu",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Transpose",
    }
    assert ops.keys() <= expected
    assert ops["LayerNormalization"] == 2  # one per attention block


def test_weights_keep_the_names_under_which_they_are_bound(
    vision_graph: Path, checkpoint: Checkpoint
) -> None:
    config = vision_config(checkpoint)
    weights = bind_vision(meta_module(config.vision, config.hidden_size), checkpoint)
    stored = {
        entry.name: onnx.numpy_helper.to_array(entry)
        for entry in onnx.load(str(vision_graph)).graph.initializer
    }
    assert weights.keys() <= stored.keys()
    for name, tensor in weights.items():
        assert np.array_equal(stored[name], tensor.numpy()), name


def test_a_folded_batch_norm_computes_what_the_two_modules_compute() -> None:
    torch.manual_seed(0)
    module = ConvNorm(6).eval()
    for name, tensor in module.bn.state_dict().items():
        if name in ("weight", "running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name in ("bias", "running_mean"):
            tensor.normal_()
    state = {f"block.{name}": value for name, value in module.state_dict().items()}
    weight, bias = fold_batch_norm(state.__getitem__, "block")
    x = torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        found = torch.nn.functional.conv2d(x, weight, bias, padding=3, groups=6)
        unscaled = torch.nn.functional.conv2d(x, module.conv.weight, bias, padding=3, groups=6)
        expected = module(x)
    assert relative_l2(found.numpy(), expected.numpy()) <= 1e-6
    assert not relative_l2(unscaled.numpy(), expected.numpy()) <= 1e-2


def test_weights_that_are_missing_or_misshapen_are_refused_by_name(
    checkpoint: Checkpoint, traced: onnx.ModelProto
) -> None:
    config = vision_config(checkpoint)
    weights = bind_vision(meta_module(config.vision, config.hidden_size), checkpoint)
    lost = dict(weights)
    del lost["projector.0.bias"]
    with pytest.raises(ExportError, match=r"projector\.0\.bias"):
        bind(traced, lost)
    swapped = weights | {"projector.0.bias": weights["vision.patch_embed.0.reparam_conv.bias"]}
    with pytest.raises(ExportError, match=r"projector\.0\.bias: traced as"):
        bind(traced, swapped)


def change_initializer(path: Path, out: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    model = onnx.load(str(path))
    tensor = next(t for t in model.graph.initializer if t.name == "projector.2.bias")
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(values.copy()), name=tensor.name))
    onnx.save(model, str(out))
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values + 1e-3, "changed image_features by"),
        (lambda values: values * np.float32("nan"), "NaN or infinite"),
    ],
)
def test_a_simplification_that_changes_the_output_is_an_error(
    vision_graph: Path,
    tmp_path: Path,
    checkpoint: Checkpoint,
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    size = checkpoint.config.vision.image_size
    feeds = {"pixel_values": np.random.default_rng(0).random((2, 3, size, size), np.float32)}
    assert check_same_outputs(vision_graph, vision_graph, feeds) == 0
    broken = change_initializer(vision_graph, tmp_path / "broken.onnx", change)
    with pytest.raises(ExportError, match=message):
        check_same_outputs(vision_graph, broken, feeds)


def test_a_simplifier_that_fails_or_cannot_vouch_for_its_result_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = onnx.ModelProto()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such op")

    monkeypatch.setattr("onnxsim.simplify", fail)
    with pytest.raises(ExportError, match="no such op"):
        simplify_module.simplify(model)
    monkeypatch.setattr("onnxsim.simplify", lambda *_, **__: (model, False))
    with pytest.raises(ExportError, match="could not validate"):
        simplify_module.simplify(model)


def test_an_export_that_fails_its_comparison_leaves_an_error_and_no_temporary_folder(
    checkpoint: Checkpoint,
    traced: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_module, "trace_vision", lambda *_, **__: traced)
    monkeypatch.setattr(simplify_module, "SIMPLIFIED_LIMIT", -1.0)
    with pytest.raises(ExportError, match="simplification changed image_features"):
        export_vision(vision_config(checkpoint), checkpoint, tmp_path, silent)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
