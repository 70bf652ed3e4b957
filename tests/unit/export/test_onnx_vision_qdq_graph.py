"""A quantized vision graph holds the integers it was given; onnxruntime computes with them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_helpers import relative_l2, vision_config
from onnx_vision_qdq_helpers import (
    QdqCase,
    coarse_images,
    entry_of,
    export,
    features,
    features_as_written,
    optimized_ops,
    quantize_vision,
    with_float_activations,
)

from fastvlm_compile.export.errors import ExportError, UnsupportedExportError
from fastvlm_compile.export.onnx import vision_half as half_module
from fastvlm_compile.export.onnx import vision_qdq as qdq_module
from fastvlm_compile.export.onnx.simplify import simplify
from fastvlm_compile.export.onnx.vision import meta_module, trace_vision
from fastvlm_compile.export.onnx.vision_half import export_half_vision
from fastvlm_compile.export.onnx.vision_layers import vision_entries
from fastvlm_compile.export.onnx.vision_read import check_vision_integers, read_vision_weights
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.tensor import same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedEntry, QuantizedWeights
from reference.checkpoint.tensors import Checkpoint
from reference.loading import build

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def _one_trace(checkpoint: Checkpoint) -> Iterator[None]:
    """The structure is traced and simplified once for all tests of this file."""
    config = vision_config(checkpoint)
    module = meta_module(config.vision, config.hidden_size)
    simplified = simplify(trace_vision(module, config.vision, opset=config.opset))
    with pytest.MonkeyPatch.context() as patch:
        for exporter in (qdq_module, half_module):
            patch.setattr(exporter, "trace_vision", lambda *_, **__: simplified)
            patch.setattr(exporter, "simplify", lambda structure: structure)
        yield


@pytest.fixture(scope="module")
def case(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> QdqCase:
    """Calibrated on all images but the last. Do not change its graph."""
    quantized = quantize_vision(checkpoint, tmp_path_factory.mktemp("quantized"))
    images = coarse_images(checkpoint.config.vision.image_size)
    graph = export(checkpoint, quantized, images[:3], tmp_path_factory.mktemp("qdq"))
    return QdqCase(checkpoint=checkpoint, quantized=quantized, images=images, graph=graph)


@pytest.fixture(scope="module")
def expected(case: QdqCase) -> np.ndarray:
    """What the reference computes from the quantized weights."""
    source = DequantizedCheckpoint(checkpoint=case.checkpoint, quantized=case.quantized)
    with torch.no_grad():
        return build(source).encode_image(torch.from_numpy(case.images)).numpy()


@pytest.fixture(scope="module")
def unquantized(case: QdqCase) -> np.ndarray:
    """What the reference computes from the checkpoint."""
    with torch.no_grad():
        return build(case.checkpoint).encode_image(torch.from_numpy(case.images)).numpy()


def test_every_integer_and_scale_in_the_file_is_the_one_that_was_quantized(case: QdqCase) -> None:
    assert case.graph.name == "vision_encoder_quantized.onnx"
    found = read_vision_weights(case.graph)
    assert found.keys() == case.quantized.entries.keys()
    for name, tensor in found.items():
        assert same_tensor(tensor, case.quantized.read(name)), name


def test_no_weight_that_is_quantized_is_in_the_file_as_floats_too(case: QdqCase) -> None:
    initializers = onnx.load(str(case.graph)).graph.initializer
    floats = [tensor for tensor in initializers if tensor.data_type == onnx.TensorProto.FLOAT]
    # What remains in float32 are depthwise kernels, 49 numbers a channel, norms and biases.
    assert max(int(np.prod(tensor.dims[1:])) for tensor in floats) <= 49
    whole = sum(int(np.prod(tensor.dims)) for tensor in initializers)
    assert sum(int(np.prod(tensor.dims)) for tensor in floats) < 0.2 * whole


def test_but_for_rounded_activations_the_graph_computes_what_the_reference_computes(
    case: QdqCase, expected: np.ndarray, unquantized: np.ndarray, tmp_path: Path
) -> None:
    floats = with_float_activations(case.graph, tmp_path / "floats.onnx")
    found = features_as_written(floats, case.images)
    assert relative_l2(found, expected) <= 1e-5
    # Negative control: the weights before they were quantized.
    assert not relative_l2(found, unquantized) <= 1e-3


def test_rounded_activations_cost_little_next_to_what_tells_images_apart(
    case: QdqCase, expected: np.ndarray
) -> None:
    found = features(case.graph, case.images)
    # Random weights amplify noise; trained ones give 50 dB.
    assert relative_l2(found, expected) <= 0.2
    assert not relative_l2(found, np.roll(expected, 1, axis=0)) <= 0.4


def test_onnxruntime_computes_with_integers_wherever_the_graph_has_them(
    case: QdqCase, tmp_path: Path
) -> None:
    ops = optimized_ops(case.graph, tmp_path)
    entries = case.quantized.entries
    roles = Counter(role_of(name, entry.shape) for name, entry in entries.items())
    assert ops["QLinearConv"] == roles["vision_pointwise"]
    assert ops["MatMulIntegerToFloat"] == roles["vision_linear"] + roles["projector"]
    # Dequantized: what the convolutions return. No weight, no layer scale is left to the run.
    assert ops["DequantizeLinear"] == ops["QLinearConv"]
    assert ops["Cast"] == 0
    assert ops["Mul"] <= 2 * roles["vision_linear"] + 1
    # Negative control: nothing is there to be fused.
    plain = with_float_activations(case.graph, tmp_path / "floats.onnx")
    assert optimized_ops(plain, tmp_path)["QLinearConv"] == 0


def test_the_same_inputs_give_the_same_bytes_and_other_images_other_ranges(
    case: QdqCase, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    again = case.export(case.images[:3], tmp_path / "again")
    assert again.read_bytes() == case.graph.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == [case.graph.name]
    (tmp_path / "other").mkdir()
    other = case.export(case.images[:1] / 4, tmp_path / "other")
    assert other.read_bytes() != case.graph.read_bytes()


def damage_code(values: np.ndarray) -> np.ndarray:
    values.reshape(-1)[7] ^= 1
    return values


def swap_neighbours(values: np.ndarray) -> np.ndarray:
    values[[0, 1]] = values[[1, 0]]
    return values


def changed(graph: Path, out: Path, suffix: str, change: Change) -> Path:
    """A copy of a graph with one initializer changed."""
    model = onnx.load(str(graph))
    tensor = next(t for t in model.graph.initializer if t.name.endswith(suffix))
    values = change(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name=tensor.name))
    onnx.save(model, str(out))
    return out


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("fc1.weight", damage_code, "not what was quantized"),
        ("qkv.weight_transposed", damage_code, "not what was quantized"),
        ("fc2.weight_scale", swap_neighbours, "not what was quantized"),
        ("patch_embed.0.reparam_conv.weight_scale", swap_neighbours, "not what was quantized"),
        ("fc1.weight_scale", lambda values: values * np.float32(1.0001), "no float16 numbers"),
        ("projector.0.weight_transposed_scale", lambda values: values[:-1], "63 scales for 64"),
    ],
)
def test_a_damaged_integer_or_scale_is_noticed_when_the_file_is_read_again(
    case: QdqCase, tmp_path: Path, suffix: str, change: Change, message: str
) -> None:
    check_vision_integers(case.graph, case.quantized)
    damaged = changed(case.graph, tmp_path / "damaged.onnx", suffix, change)
    with pytest.raises(ExportError, match=message):
        check_vision_integers(damaged, case.quantized)


def with_one(case: QdqCase, name: str, entry: QuantizedEntry) -> QuantizedWeights:
    return replace(case.quantized, entries={**case.quantized.entries, name: entry})


def test_a_tensor_that_the_graph_lacks_is_noticed(case: QdqCase) -> None:
    more = with_one(case, "model.mm_projector.4.weight", entry_of((4, 4)))
    with pytest.raises(ExportError, match=r"mm_projector\.4\.weight"):
        check_vision_integers(case.graph, more)


def test_schemes_that_a_vision_graph_cannot_hold_are_the_users_error(case: QdqCase) -> None:
    blocks = entry_of((64, 256), Affine(bits=4, block_size=32, symmetric=True))
    with pytest.raises(UnsupportedExportError, match="int4 block 32 symmetric") as caught:
        vision_entries(with_one(case, "model.mm_projector.0.weight", blocks))
    assert "int8 per channel symmetric" in (caught.value.hint or "")
    depthwise = "model.vision_tower.vision_tower.model.network.0.0.token_mixer.reparam_conv.weight"
    with pytest.raises(UnsupportedExportError, match="depthwise"):
        vision_entries(with_one(case, depthwise, entry_of((8, 1, 3, 3))))
    # The decoder's tensors may be what they like.
    decoder = "model.layers.0.mlp.up_proj.weight"
    assert decoder not in vision_entries(with_one(case, decoder, blocks))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda images: images[:0], "no calibration image"),
        (lambda images: images[:1, :, :-1], r"calibration image is \(3, 127, 128\)"),
        (lambda images: images[:1] * np.float32("nan"), "NaN or infinite"),
    ],
)
def test_calibration_images_that_cannot_serve_are_an_error_and_leave_nothing(
    case: QdqCase, tmp_path: Path, make: Change, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        case.export(make(case.images), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_half_graph_stores_float16_and_computes_what_the_rounded_weights_compute(
    case: QdqCase, unquantized: np.ndarray, tmp_path: Path
) -> None:
    saved = export_half_vision(vision_config(case.checkpoint), case.checkpoint, tmp_path, silent)
    assert saved.graph.name == "vision_encoder_fp16.onnx"
    kinds = Counter[int]()
    for tensor in onnx.load(str(saved.graph)).graph.initializer:
        kinds[tensor.data_type] += int(np.prod(tensor.dims))
    assert kinds[onnx.TensorProto.FLOAT16] > 30 * kinds[onnx.TensorProto.FLOAT]
    assert optimized_ops(saved.graph, tmp_path)["Cast"] == 0
    found = features(saved.graph, case.images)
    assert found.dtype == np.float32
    # The checkpoint is float16 itself; kernels with a folded BatchNorm are rounded once more.
    assert relative_l2(found, unquantized) <= 2e-3
    assert not relative_l2(found, unquantized) <= 1e-5  # negative control: not float32
