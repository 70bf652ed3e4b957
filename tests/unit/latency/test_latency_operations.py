"""The operations computed from a config are those counted in the exported graphs."""

from pathlib import Path

import pytest

from reference.config import FastVLMConfig, load_config
from validation.latency.graph_bytes import conv_and_matmul_operations, weight_bytes
from validation.latency.operations import (
    decoder_operations,
    projector_operations,
    vision_operations,
)

IMAGE_SIZE = 128
NUM_TOKENS = 4


@pytest.fixture(scope="module")
def config(random_checkpoint: Path) -> FastVLMConfig:
    return load_config(random_checkpoint)


@pytest.fixture(scope="module")
def graphs(onnx_bundle: Path) -> Path:
    return onnx_bundle / "onnx"


def test_the_tower_s_operations_are_those_of_its_graph(config: FastVLMConfig, graphs: Path) -> None:
    computed = vision_operations(config.vision, IMAGE_SIZE)
    computed += projector_operations(config, NUM_TOKENS)
    assert computed == conv_and_matmul_operations(graphs / "vision_encoder.onnx")


def test_one_token_multiplies_every_weight_of_the_decoder_once(config: FastVLMConfig) -> None:
    text = config.text
    head, hidden = text.vocab_size * text.hidden_size, text.hidden_size
    kv = text.num_key_value_heads * text.head_dim
    layer = 2 * hidden * (hidden + kv) + 3 * hidden * text.intermediate_size
    weights = head + text.num_hidden_layers * layer
    # Of one position behind none, attention looks at that position alone: q.k and p.v.
    attention = text.num_hidden_layers * 2 * hidden
    assert decoder_operations(text, num_new=1, num_past=0) == 2 * (weights + attention)


def test_a_prompt_in_two_parts_costs_a_head_more(config: FastVLMConfig) -> None:
    text = config.text
    whole = decoder_operations(text, num_new=64, num_past=0)
    parts = decoder_operations(text, num_new=40, num_past=0)
    parts += decoder_operations(text, num_new=24, num_past=40)
    assert parts - whole == 2 * text.vocab_size * text.hidden_size


def test_a_decoder_reads_its_weights_once_and_no_tables(
    config: FastVLMConfig, graphs: Path
) -> None:
    text = config.text
    kv = text.num_key_value_heads * text.head_dim
    hidden = text.hidden_size
    layer = 2 * hidden * (hidden + kv) + 3 * hidden * text.intermediate_size
    floats = text.vocab_size * hidden + text.num_hidden_layers * layer
    found = weight_bytes(graphs / "decoder_model_merged.onnx")
    # Norms, biases and small constants are what is left.
    assert 4 * floats < found < 4 * floats * 1.02
