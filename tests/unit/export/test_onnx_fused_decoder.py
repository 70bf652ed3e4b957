"""The fused decoder computes what the plain one does, and refuses what it would get wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_helpers import Graph, decoder_config, relative_l2
from onnx_decoder_feeds import decoder_feeds

from fastvlm_compile.export.errors import UnsupportedExportError
from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import decoder_contract
from fastvlm_compile.export.onnx.decoder import build_decoder
from fastvlm_compile.export.onnx.files import save_graph
from fastvlm_compile.export.onnx.fused import float_encoding
from fastvlm_compile.export.onnx.group_query_attention import DENSE_SCOPE
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import Qwen2Config

Random = Callable[..., torch.Tensor]

# float32 sums in another order, as for the plain graph; a wrong mask or angle is 1e-2.
LIMIT = 1e-5

REFUSED = (
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.Fail,
)


@pytest.fixture(scope="module")
def fused(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return write_fused(checkpoint, tmp_path_factory.mktemp("fused"))


@pytest.fixture(scope="module")
def text(checkpoint: Checkpoint) -> Qwen2Config:
    return checkpoint.config.text


def write_fused(checkpoint: Checkpoint, out: Path, *, logits: str = "full") -> Graph:
    config = decoder_config(checkpoint, logits=logits)
    saved = save_graph(build_decoder(config, float_encoding(checkpoint)), out, "fused", silent)
    check_graph(saved.graph, decoder_contract(config.text, last_only=logits == "last"))
    return Graph.open(saved.graph)


def check_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert relative_l2(found[name], values) <= LIMIT, name


@pytest.mark.parametrize("shape", [(1, 9), (3, 7), (2, 1), (1, 100)])
def test_a_prefill_gives_the_logits_and_cache_of_the_plain_graph(
    fused: Graph, decoder: Graph, text: Qwen2Config, random_tensor: Random, shape: tuple[int, int]
) -> None:
    feeds = decoder_feeds(text, random_tensor(*shape, text.hidden_size))
    check_same(fused.run(feeds), decoder.run(feeds))


@pytest.mark.parametrize("pieces", [(1, (5, 1, 1, 3)), (1, (75, 1, 8, 1)), (3, (6, 1))])
def test_pieces_on_top_of_a_cache_give_what_the_plain_graph_gives(
    fused: Graph,
    decoder: Graph,
    text: Qwen2Config,
    random_tensor: Random,
    pieces: tuple[int, tuple[int, ...]],
) -> None:
    batch, lengths = pieces
    found, expected = None, None
    for length in lengths:
        embeds = random_tensor(batch, length, text.hidden_size)
        found = fused.run(decoder_feeds(text, embeds, found))
        expected = decoder.run(decoder_feeds(text, embeds, expected))
        check_same(found, expected)


def test_the_last_positions_the_model_knows_are_right_and_the_next_is_refused(
    fused: Graph, decoder: Graph, text: Qwen2Config, random_tensor: Random
) -> None:
    end = text.max_position_embeddings
    shape = (1, text.num_key_value_heads, end - 3, text.head_dim)
    past = {
        f"present.{layer}.{part}": random_tensor(*shape).numpy()
        for layer in range(text.num_hidden_layers)
        for part in ("key", "value")
    }
    for length in (2, 1):
        feeds = decoder_feeds(text, random_tensor(1, length, text.hidden_size), past)
        expected = decoder.run(feeds)
        past = fused.run(feeds)
        check_same(past, expected)
    assert past["present.0.key"].shape[2] == end
    beyond = decoder_feeds(text, random_tensor(1, 1, text.hidden_size), past)
    with pytest.raises(REFUSED, match="cos_cache"):
        fused.run(beyond)


def test_last_logits_are_the_last_row_of_full_logits(
    fused: Graph, checkpoint: Checkpoint, random_tensor: Random, tmp_path: Path
) -> None:
    text = checkpoint.config.text
    feeds = decoder_feeds(text, random_tensor(2, 5, text.hidden_size))
    last = write_fused(checkpoint, tmp_path, logits="last").run(feeds)["logits"]
    assert last.shape == (2, 1, text.vocab_size)
    assert relative_l2(last, fused.run(feeds)["logits"][:, -1:]) <= LIMIT


def test_the_comparison_sees_one_token_more_or_less(
    fused: Graph, decoder: Graph, text: Qwen2Config, random_tensor: Random
) -> None:
    embeds = random_tensor(1, 9, text.hidden_size)
    full = decoder.run(decoder_feeds(text, embeds))["logits"]
    short = fused.run(decoder_feeds(text, embeds[:, 1:]))["logits"]
    assert not relative_l2(short, full[:, 1:]) <= 100 * LIMIT


@pytest.mark.parametrize("padded", [(0, 0), (1, 3), (0, 6)])
def test_padding_is_refused_and_not_answered(
    fused: Graph, text: Qwen2Config, random_tensor: Random, padded: tuple[int, int]
) -> None:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[padded] = 0
    feeds = decoder_feeds(text, random_tensor(2, 7, text.hidden_size), mask=mask)
    with pytest.raises(REFUSED, match=DENSE_SCOPE):
        fused.run(feeds)


@pytest.mark.parametrize("moved", [1, -1])
def test_positions_out_of_order_are_refused_and_not_ignored(
    fused: Graph, text: Qwen2Config, random_tensor: Random, moved: int
) -> None:
    embeds = random_tensor(1, 4, text.hidden_size)
    past = fused.run(decoder_feeds(text, embeds))
    for cache, start in ((None, 0), (past, 4)):
        positions = torch.arange(start, start + 4)[None, :].clone()
        positions[0, 2] += moved
        with pytest.raises(REFUSED, match=DENSE_SCOPE):
            fused.run(decoder_feeds(text, embeds, cache, positions=positions))


def test_several_rows_on_top_of_a_cache_take_one_position_each(
    fused: Graph, text: Qwen2Config, random_tensor: Random
) -> None:
    past = fused.run(decoder_feeds(text, random_tensor(2, 4, text.hidden_size)))
    with pytest.raises(REFUSED, match="batch_size must be 1"):
        fused.run(decoder_feeds(text, random_tensor(2, 2, text.hidden_size), past))


def test_a_layer_is_one_attention_and_two_skip_norms_and_nothing_is_rotated_outside(
    fused: Graph, text: Qwen2Config
) -> None:
    model = onnx.load(str(fused.path))
    ops = [node.op_type for node in model.graph.node]
    layers = text.num_hidden_layers
    assert ops.count("GroupQueryAttention") == layers
    assert ops.count("SkipSimplifiedLayerNormalization") == 2 * layers
    assert ops.count("MatMul") == 7 * layers + 1
    # The first norm alone is in standard ops, the rest of the softmax and the cache nowhere.
    assert ops.count("Sqrt") == 1
    assert not {"Softmax", "Concat", "Transpose", "Where"} & set(ops)
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [
        ("", 21),
        ("com.microsoft", 1),
    ]


def test_onnxruntime_makes_one_kernel_of_the_first_norm_and_of_each_activation(
    fused: Graph, text: Qwen2Config, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(fused.path), options)
    ops = [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node]
    assert ops.count("SimplifiedLayerNormalization") == 1
    assert ops.count("QuickGelu") == text.num_hidden_layers


def test_heads_of_a_width_that_cannot_be_rotated_are_the_users_error(
    make_checkpoint: Callable[..., Path],
) -> None:
    narrow = open_checkpoint(make_checkpoint(num_attention_heads=8, num_key_value_heads=4))
    with pytest.raises(UnsupportedExportError, match="heads 8 channels wide") as caught:
        build_decoder(decoder_config(narrow), float_encoding(narrow))
    assert "multiple of 16" in (caught.value.hint or "")
