"""The decoder graph computes what the reference computes, in every way it is called."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from export_helpers import Graph, decoder_config, relative_l2

from fastvlm_compile.export.onnx.attention import PlainAttention
from fastvlm_compile.export.onnx.decoder import DecoderEncoding, build_decoder
from fastvlm_compile.export.onnx.export import export_decoder
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.linear import LinearSpec, PlainLinear
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import Qwen2Config
from reference.fastvlm import FastVLM
from reference.loading import load
from reference.qwen2 import Cache, Qwen2

Random = Callable[..., torch.Tensor]

# float32 sums in another order: 1e-7 per op, some tens of ops deep. A wrong mask or angle is 1e-2.
LIMIT = 1e-5


def feeds_of(
    text: Qwen2Config,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    past: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    feeds = {
        "inputs_embeds": embeds.numpy(),
        "attention_mask": mask.numpy(),
        "position_ids": positions.numpy(),
    }
    empty = np.zeros((embeds.shape[0], text.num_key_value_heads, 0, text.head_dim), np.float32)
    for layer in range(text.num_hidden_layers):
        for part in ("key", "value"):
            name = f"{layer}.{part}"
            feeds[f"past_key_values.{name}"] = empty if past is None else past[f"present.{name}"]
    return feeds


def run_reference(
    model: Qwen2,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Cache | None = None,
) -> tuple[np.ndarray, Cache]:
    with torch.no_grad():
        logits, cache = model(embeds, cache=cache, attention_mask=mask, position_ids=positions)
    return logits.numpy(), cache


def ones(batch: int, length: int) -> torch.Tensor:
    return torch.ones(batch, length, dtype=torch.long)


def count(start: int, stop: int, *, batch: int = 1) -> torch.Tensor:
    return torch.arange(start, stop).expand(batch, -1).contiguous()


def test_a_prefill_without_a_past_gives_the_logits_and_cache_of_the_reference(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    embeds, mask, positions = random_tensor(1, 9, text.hidden_size), ones(1, 9), count(0, 9)
    found = decoder.run(feeds_of(text, embeds, mask, positions))
    logits, cache = run_reference(reference.language, embeds, mask, positions)
    assert relative_l2(found["logits"], logits) <= LIMIT
    for layer in range(text.num_hidden_layers):
        assert relative_l2(found[f"present.{layer}.key"], cache[layer].key.numpy()) <= LIMIT
        assert relative_l2(found[f"present.{layer}.value"], cache[layer].value.numpy()) <= LIMIT


@pytest.mark.parametrize("lengths", [(5, 1, 1, 3), (1, 1, 6), (4, 4)])
def test_decoding_in_pieces_with_the_cache_gives_the_logits_of_one_run(
    decoder: Graph, reference: FastVLM, random_tensor: Random, lengths: tuple[int, ...]
) -> None:
    text, total = reference.config.text, sum(lengths)
    embeds = random_tensor(2, total, text.hidden_size)
    expected, _ = run_reference(
        reference.language, embeds, ones(2, total), count(0, total, batch=2)
    )
    past, pieces, start = None, [], 0
    for length in lengths:
        stop = start + length
        feeds = feeds_of(
            text, embeds[:, start:stop], ones(2, stop), count(start, stop, batch=2), past
        )
        past = decoder.run(feeds)
        pieces.append(past["logits"])
        start = stop
    assert relative_l2(np.concatenate(pieces, axis=1), expected) <= LIMIT


def test_left_padded_rows_of_a_batch_equal_the_reference_and_the_same_rows_alone(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    embeds = random_tensor(2, 7, text.hidden_size)
    mask = ones(2, 7)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = decoder.run(feeds_of(text, embeds, mask, positions))
    expected, cache = run_reference(reference.language, embeds, mask, positions)
    assert np.isfinite(found["logits"]).all()
    assert relative_l2(found["logits"], expected) <= LIMIT
    alone = decoder.run(feeds_of(text, embeds[:1, 3:], ones(1, 4), count(0, 4)))
    assert relative_l2(found["logits"][:1, 3:], alone["logits"]) <= LIMIT
    # One more token on top of the padded cache.
    token, longer = random_tensor(2, 1, text.hidden_size), torch.cat([mask, ones(2, 1)], dim=1)
    next_positions = longer.sum(-1, keepdim=True) - 1
    found = decoder.run(feeds_of(text, token, longer, next_positions, found))
    expected, _ = run_reference(reference.language, token, longer, next_positions, cache)
    assert relative_l2(found["logits"], expected) <= LIMIT


def test_the_comparison_sees_an_ignored_mask_and_a_position_off_by_one(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    embeds, mask = random_tensor(1, 7, text.hidden_size), ones(1, 7)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected, _ = run_reference(reference.language, embeds, mask, positions)
    unmasked = decoder.run(feeds_of(text, embeds, ones(1, 7), positions))["logits"]
    assert not relative_l2(unmasked, expected) <= 100 * LIMIT
    # A shift of all positions changes nothing (rotary angles are relative), of one row it does.
    shifted = positions.clone()
    shifted[0, 5:] += 1
    moved = decoder.run(feeds_of(text, embeds, mask, shifted))["logits"]
    assert not relative_l2(moved, expected) <= 100 * LIMIT


def test_a_query_never_sees_what_comes_after_it(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    embeds = random_tensor(1, 6, text.hidden_size)
    before = decoder.run(feeds_of(text, embeds, ones(1, 6), count(0, 6)))["logits"]
    embeds[0, 4:] += 1
    after = decoder.run(feeds_of(text, embeds, ones(1, 6), count(0, 6)))["logits"]
    assert np.array_equal(before[:, :4], after[:, :4])
    assert not np.array_equal(before[:, 4:], after[:, 4:])


def test_angles_are_accurate_at_the_last_positions_the_model_knows(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    last = text.max_position_embeddings
    embeds, mask = random_tensor(1, 4, text.hidden_size), ones(1, 4)
    positions = torch.tensor([[0, last // 2, last - 2, last - 1]])
    found = decoder.run(feeds_of(text, embeds, mask, positions))
    expected, _ = run_reference(reference.language, embeds, mask, positions)
    assert relative_l2(found["logits"], expected) <= LIMIT


def test_a_position_past_the_table_is_an_error_and_not_an_answer(
    decoder: Graph, reference: FastVLM, random_tensor: Random
) -> None:
    text = reference.config.text
    positions = torch.tensor([[text.max_position_embeddings]])
    feeds = feeds_of(text, random_tensor(1, 1, text.hidden_size), ones(1, 1), positions)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="bounds"):
        decoder.run(feeds)


def test_last_logits_are_the_last_row_of_full_logits(
    decoder: Graph, checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    text = checkpoint.config.text
    saved = export_decoder(decoder_config(checkpoint, logits="last"), checkpoint, tmp_path, silent)
    feeds = feeds_of(text, random_tensor(2, 5, text.hidden_size), ones(2, 5), count(0, 5, batch=2))
    last, full = Graph.open(saved.graph).run(feeds)["logits"], decoder.run(feeds)["logits"]
    assert last.shape == (2, 1, text.vocab_size)
    assert relative_l2(last, full[:, -1:]) <= LIMIT


def test_a_tied_head_is_the_embedding_whatever_the_config_says(
    make_checkpoint: Callable[..., Path], random_tensor: Random, tmp_path: Path
) -> None:
    directory = make_checkpoint(tie_word_embeddings=True)
    checkpoint, model = open_checkpoint(directory), load(directory)
    text = checkpoint.config.text
    assert checkpoint.tied
    saved = export_decoder(decoder_config(checkpoint), checkpoint, tmp_path, silent)
    embeds = random_tensor(1, 5, text.hidden_size)
    found = Graph.open(saved.graph).run(feeds_of(text, embeds, ones(1, 5), count(0, 5)))
    expected, _ = run_reference(model.language, embeds, ones(1, 5), count(0, 5))
    assert relative_l2(found["logits"], expected) <= LIMIT


def test_the_cache_is_not_repeated_for_the_query_heads(exported: Path) -> None:
    graph = onnx.load(str(exported / "decoder_model_merged.onnx")).graph
    used_by = {
        name: [node.op_type for node in graph.node if name in node.input]
        for name in ("present.0.key", "present.0.value")
    }
    assert used_by == {"present.0.key": ["Transpose"], "present.0.value": ["MatMul"]}
    assert not {"Expand", "GroupQueryAttention"} & {node.op_type for node in graph.node}


def test_only_standard_ops_are_used(exported: Path) -> None:
    model = onnx.load(str(exported / "decoder_model_merged.onnx"))
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]


def test_onnxruntime_knows_the_norms_and_the_activation_as_single_kernels(
    exported: Path, tmp_path: Path, checkpoint: Checkpoint
) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(exported / "decoder_model_merged.onnx"), options)
    ops = [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node]
    layers = checkpoint.config.text.num_hidden_layers
    assert ops.count("SimplifiedLayerNormalization") == 2 * layers + 1
    assert ops.count("QuickGelu") == layers


def test_an_encoding_is_asked_for_every_linear_layer_and_may_write_it_its_own_way(
    checkpoint: Checkpoint,
) -> None:
    plain = PlainLinear(source=checkpoint)
    asked: list[LinearSpec] = []

    def own_linear(graph: GraphBuilder, x: ir.Value, linear: LinearSpec) -> ir.Value:
        asked.append(linear)
        if linear.name.endswith("o_proj"):
            return graph.op("MyLinear", x, domain="my.domain", bits=4)
        return plain(graph, x, linear)

    encoding = DecoderEncoding(
        source=checkpoint, linear=own_linear, attention=PlainAttention.prepare
    )
    model = build_decoder(decoder_config(checkpoint), encoding)
    layers = checkpoint.config.text.num_hidden_layers
    assert len(asked) == len({spec.name for spec in asked}) == 7 * layers + 1
    assert {spec.weight for spec in asked} <= checkpoint.tensors.keys()
    assert [node.op_type for node in model.graph].count("MyLinear") == layers
    assert model.opset_imports == {"": 21, "my.domain": 1}
    assert not any("o_proj" in name for name in model.graph.initializers)
