"""The decoder's smaller variants compute what the reference with their weights computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_helpers import OPSET, Graph, decoder_config, relative_l2
from onnx_decoder_feeds import answer, decoder_feeds
from onnx_quantized_helpers import quantize_language, random_tensor

from fastvlm_compile.export.errors import ExportError, UnsupportedExportError
from fastvlm_compile.export.onnx.export import export_decoder, export_embedding
from fastvlm_compile.export.onnx.export_variants import (
    export_half_decoder,
    export_half_embedding,
    export_quantized_decoder,
)
from fastvlm_compile.export.onnx.matmul_nbits import AccuracyLevel
from fastvlm_compile.export.onnx.read_back import check_same_integers, read_back
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.tensor import same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights, write_tensor
from reference.checkpoint.names import LM_HEAD
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.loading import build, load

Random = Callable[..., torch.Tensor]

# float32 sums in another order: what conversion may cost, whatever quantization did.
LIMIT = 1e-5

# Activations rounded to 8 bits in front of every linear of two layers.
ROUNDED = 8e-2

INT4 = Affine(bits=4, block_size=32, symmetric=True)


def write(
    checkpoint: Checkpoint,
    quantized: QuantizedWeights,
    out: Path,
    *,
    accuracy_level: AccuracyLevel = 0,
) -> Graph:
    saved = export_quantized_decoder(
        decoder_config(checkpoint),
        checkpoint,
        quantized,
        out,
        silent,
        variant="int4",
        context_length=64,
        accuracy_level=accuracy_level,
    )
    assert saved.graph.name == "decoder_model_merged_q4.onnx"
    return Graph.open(saved.graph)


def ops_of(graph: Graph) -> list[str]:
    return [node.op_type for node in onnx.load(str(graph.path)).graph.node]


@pytest.mark.parametrize(
    "scheme",
    [
        INT4,
        Affine(bits=4, block_size=128, symmetric=False),
        Affine(bits=8, block_size=32, symmetric=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_decoder_is_the_reference_with_dequantized_weights(
    make_checkpoint: Callable[..., Path],
    random_tensor: Random,
    tmp_path: Path,
    scheme: Affine,
    tied: bool,
) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tie_word_embeddings=tied))
    assert checkpoint.tied is tied
    quantized = quantize_language(checkpoint, tmp_path / "quantized", scheme)
    graph = write(checkpoint, quantized, tmp_path)
    model = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)).language
    text = checkpoint.config.text
    prompt = random_tensor(2, 6, text.hidden_size)
    past = graph.run(decoder_feeds(text, prompt))
    expected, cache = answer(model, prompt)
    assert relative_l2(past["logits"], expected) <= LIMIT
    float_logits, _ = answer(load(checkpoint.path).language, prompt)
    assert not relative_l2(past["logits"], float_logits) <= 100 * LIMIT
    token = random_tensor(2, 1, text.hidden_size)
    found = graph.run(decoder_feeds(text, token, past))["logits"]
    assert relative_l2(found, answer(model, token, cache)[0]) <= LIMIT


def test_the_shipped_accuracy_level_stays_near_the_reference(
    checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    quantized = quantize_language(checkpoint, tmp_path / "quantized", INT4)
    graph = write(checkpoint, quantized, tmp_path, accuracy_level=4)
    model = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)).language
    embeds = random_tensor(1, 20, checkpoint.config.text.hidden_size)
    found = graph.run(decoder_feeds(checkpoint.config.text, embeds))["logits"]
    assert relative_l2(found, answer(model, embeds)[0]) <= ROUNDED


def test_every_linear_is_quantized_and_those_of_one_input_are_one_where_schemes_agree(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    uniform = quantize_language(checkpoint, tmp_path / "uniform", INT4)
    ops = ops_of(write(checkpoint, uniform, tmp_path))
    layers = checkpoint.config.text.num_hidden_layers
    assert "MatMul" not in ops
    assert ops.count("MatMulNBits") == 4 * layers + 1
    odd = {"model.layers.0.self_attn.k_proj.weight": Affine(bits=8, block_size=32, symmetric=True)}
    mixed = quantize_language(checkpoint, tmp_path / "mixed", INT4, but=odd)
    graph = write(checkpoint, mixed, tmp_path)
    assert ops_of(graph).count("MatMulNBits") == 4 * layers + 3
    assert {name: tensor.scheme for name, tensor in read_back(graph.path, mixed.entries)} == {
        name: entry.scheme
        for name, entry in mixed.entries.items()
        if name != "model.embed_tokens.weight"
    }


def test_a_layer_of_its_own_scheme_computes_the_same(
    checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    odd = {
        "model.layers.0.self_attn.k_proj.weight": Affine(bits=8, block_size=32, symmetric=True),
        "model.layers.1.mlp.up_proj.weight": Affine(bits=4, block_size=16, symmetric=False),
    }
    quantized = quantize_language(checkpoint, tmp_path / "quantized", INT4, but=odd)
    graph = write(checkpoint, quantized, tmp_path)
    model = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)).language
    embeds = random_tensor(1, 9, checkpoint.config.text.hidden_size)
    found = graph.run(decoder_feeds(checkpoint.config.text, embeds))["logits"]
    assert relative_l2(found, answer(model, embeds)[0]) <= LIMIT


def test_a_written_graph_is_read_again_and_one_stale_scale_fails_the_export(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = quantize_language(checkpoint, tmp_path / "quantized", INT4)
    graph = write(checkpoint, quantized, tmp_path)
    names = quantized.entries.keys() - {"model.embed_tokens.weight"}
    check_same_integers(graph.path, quantized, names)
    for wrong, message in ((names | {"x"}, "not in the graph"), (names - {LM_HEAD}, "should not")):
        with pytest.raises(ExportError, match=message):
            check_same_integers(graph.path, quantized, wrong)
    found = dict(read_back(graph.path, quantized.entries))
    assert found.keys() == names
    assert all(same_tensor(tensor, quantized.read(name)) for name, tensor in found.items())
    name = "model.layers.1.self_attn.v_proj.weight"
    shape = quantized.entries[name].shape
    write_tensor(tmp_path / "quantized", name, random_tensor(INT4, (shape[0], shape[1]), seed=99))
    with pytest.raises(ExportError, match=f"{name} is not what was quantized"):
        check_same_integers(graph.path, quantized, names)


def test_weights_are_read_when_they_are_written_and_the_bytes_are_reproducible(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = quantize_language(checkpoint, tmp_path / "quantized", INT4)
    digests = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        saved = export_quantized_decoder(
            decoder_config(checkpoint),
            checkpoint,
            quantized,
            tmp_path / folder,
            silent,
            variant="int8",
            context_length=64,
            inline_limit_bytes=0,
        )
        assert len(saved.data) == 1
        assert saved.graph.name == "decoder_model_merged_quantized.onnx"
        digests.add(saved.digest())
    assert len(digests) == 1


def test_half_precision_is_the_reference_with_rounded_matrices_in_half_the_bytes(
    checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    config = decoder_config(checkpoint)
    half = export_half_decoder(
        config, checkpoint, tmp_path, silent, context_length=64, inline_limit_bytes=0
    )
    full = export_decoder(config, checkpoint, tmp_path, silent)
    model = load(checkpoint.path).language
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half().float())
    embeds = random_tensor(1, 9, checkpoint.config.text.hidden_size)
    graph = Graph.open(half.graph)
    found = graph.run(decoder_feeds(checkpoint.config.text, embeds))["logits"]
    assert found.dtype == np.float32
    assert relative_l2(found, answer(model, embeds)[0]) <= LIMIT
    assert half.graph.name == "decoder_model_merged_fp16.onnx"
    (data,) = half.data
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    matrices -= model.embed_tokens.weight.numel()
    saved_bytes = full.graph.stat().st_size - data.stat().st_size
    assert saved_bytes > 0.8 * 2 * matrices
    assert ops_of(graph).count("GroupQueryAttention") == config.text.num_hidden_layers


def test_a_half_embedding_gives_the_rounded_rows_in_float32(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    half = export_half_embedding(checkpoint, tmp_path, silent, opset=OPSET)
    full = export_embedding(checkpoint, tmp_path, silent, opset=OPSET)
    ids = np.arange(checkpoint.config.text.vocab_size)[None, :]
    found = Graph.open(half.graph).run({"input_ids": ids})["inputs_embeds"]
    expected = Graph.open(full.graph).run({"input_ids": ids})["inputs_embeds"]
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.astype(np.float16).astype(np.float32))
    assert half.graph.stat().st_size < 0.52 * full.graph.stat().st_size


def test_a_weight_beyond_half_precision_is_an_error_and_no_infinity(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    class Large:
        tensors = checkpoint.tensors

        def read(self, name: str) -> torch.Tensor:
            values = checkpoint.read(name).float()
            return values * 1e7 if name.endswith("layers.1.mlp.up_proj.weight") else values

    with pytest.raises(ExportError, match=r"up_proj.*beyond float16's range"):
        export_half_decoder(
            decoder_config(checkpoint), Large(), tmp_path, silent, context_length=64
        )
    assert not list(tmp_path.glob("*.onnx*"))


@pytest.mark.parametrize("context_length", [0, 513])
def test_a_context_the_model_does_not_know_is_the_users_error(
    checkpoint: Checkpoint, tmp_path: Path, context_length: int
) -> None:
    assert checkpoint.config.text.max_position_embeddings == 512
    with pytest.raises(UnsupportedExportError, match=f"context of {context_length} positions"):
        export_half_decoder(
            decoder_config(checkpoint), checkpoint, tmp_path, silent, context_length=context_length
        )


def test_the_graph_answers_up_to_its_context_and_not_beyond(
    checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    quantized = quantize_language(checkpoint, tmp_path / "quantized", INT4)
    graph = write(checkpoint, quantized, tmp_path)
    model = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)).language
    text = checkpoint.config.text
    embeds = random_tensor(1, 64, text.hidden_size)
    past = graph.run(decoder_feeds(text, embeds))
    assert relative_l2(past["logits"], answer(model, embeds)[0]) <= LIMIT
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="cos_cache"):
        graph.run(decoder_feeds(text, random_tensor(1, 1, text.hidden_size), past))
