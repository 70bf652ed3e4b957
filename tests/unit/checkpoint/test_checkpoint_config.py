"""`config.json` of both layouts is read key by key, and nothing unknown is passed over."""

import json

import pytest

from fastvlm_compile.checkpoint.configs import (
    apple_config,
    same_model,
    to_apple_config,
    to_transformers_config,
)
from fastvlm_compile.checkpoint.sizes import SIZE_NAMES, SIZES, size_label, size_named
from reference.config import load_config, parse_config
from reference.errors import CheckpointError, ConfigError


def transformers_config(raw, *, tied=False):
    return to_transformers_config(raw, source="config.json", tied=tied, image_token_id=323)


@pytest.mark.parametrize(
    ("size", "width", "heads", "depth_and_rows"),
    [
        ("0.5b", (896, 4864), (14, 2, 64), (24, 151936)),
        ("1.5b", (1536, 8960), (12, 2, 128), (28, 151936)),
        ("7b", (3584, 18944), (28, 4, 128), (28, 152064)),
    ],
)
def test_released_sizes_have_the_architecture_of_the_facts(
    size, width, heads, depth_and_rows
) -> None:
    config = parse_config(apple_config(size_named(size)), source="config.json")
    text = config.text
    assert (text.hidden_size, text.intermediate_size) == width
    assert (text.num_attention_heads, text.num_key_value_heads, text.head_dim) == heads
    assert (text.num_hidden_layers, text.vocab_size) == depth_and_rows
    assert (text.rope_theta, text.rms_norm_eps) == (1e6, 1e-6)
    assert (config.vision.image_size, config.vision.num_tokens) == (1024, 256)
    assert config.vision.out_channels == 3072
    assert (config.context_length, config.eos_token_ids) == (8192, (151645,))
    assert config.image_aspect_ratio == "pad"
    assert size_label(config) == size.upper()


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="'3b'") as caught:
        size_named("3b")
    assert all(name in caught.value.hint for name in SIZE_NAMES)


def test_a_model_of_another_architecture_has_no_released_size(tiny_config) -> None:
    assert size_label(parse_config(tiny_config, source="config.json")) == "other"
    wide = apple_config(SIZES[0]) | {"intermediate_size": 4866}
    assert size_label(parse_config(wide, source="config.json")) == "other"


def test_the_towers_name_decides_the_number_of_tokens() -> None:
    for size, tokens in ((256, 16), (512, 64), (1024, 256)):
        raw = apple_config(SIZES[0], image_size=size)
        assert parse_config(raw, source="config.json").vision.num_tokens == tokens


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mm_projector_type", "linear", ["mm_projector_type", "linear", "mlp2x_gelu"]),
        ("mm_vision_tower", "openai/clip-vit-large", ["mm_vision_tower", "mobileclip_l_1024"]),
        ("mm_vision_tower", "mobileclip_l_1000", ["mm_vision_tower", "multiple of 64"]),
        ("hidden_act", "gelu", ["hidden_act", "silu"]),
        ("model_type", "llava_llama", ["model_type", "llava_qwen2"]),
        ("image_aspect_ratio", "anyres", ["image_aspect_ratio", "pad"]),
        ("use_sliding_window", True, ["use_sliding_window"]),
        ("rope_scaling", {"type": "yarn"}, ["rope_scaling"]),
        ("mm_use_im_start_end", True, ["mm_use_im_start_end"]),
        ("hidden_size", "64", ["hidden_size", "whole number"]),
        ("hidden_size", 65, ["hidden_size", "heads"]),
        ("hidden_size", None, ["hidden_size", "missing"]),
        ("num_key_value_heads", 3, ["key-value"]),
        ("mm_hidden_size", 255, ["mm_hidden_size", "256"]),
        ("num_hiden_layers", 2, ["num_hiden_layers", "num_hidden_layers"]),
        ("mm_vision_config", {"depths": [1, 1], "widths": [8, 128]}, ["five stages"]),
        ("mm_vision_config", [1], ["mm_vision_config", "object"]),
    ],
)
def test_what_fastvlm_is_not_is_refused_by_name(tiny_config, key, value, words) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(tiny_config | {key: value}, source="where/config.json")
    told = caught.value.message + caught.value.hint
    assert "where/config.json" in told
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"projector_hidden_act": "relu"}, "projector_hidden_act"),
        ({"vision_feature_layer": -2}, "vision_feature_layer"),
        ({"image_seq_length": 5}, "image_seq_length"),
        ({"surprise": 1}, "surprise"),
        ({"vision_config": {"architecture": "vit_large"}}, "architecture"),
        ({"vision_config": {"architecture": "fastvit_mci3", "hidden_size": 77}}, "hidden_size"),
    ],
)
def test_what_the_transformers_layout_is_not_is_refused_by_name(tiny_config, change, word) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_config(transformers_config(tiny_config) | change, source="config.json")


def test_a_config_keeps_its_meaning_through_the_other_layout(tiny_config) -> None:
    apple = parse_config(tiny_config, source="config.json")
    raw = transformers_config(tiny_config)
    other = parse_config(raw, source="config.json")
    back = parse_config(to_apple_config(raw, source="x", tied=False), source="config.json")
    assert other.layout == "transformers"
    assert other.image_token_id == 323
    assert same_model(apple, other)
    assert same_model(apple, back)
    assert back.eos_token_ids == apple.eos_token_ids
    changed = parse_config(tiny_config | {"rope_theta": 1e4}, source="config.json")
    assert not same_model(changed, other)


def test_the_transformers_config_says_what_the_tensors_say_of_the_tie(tiny_config) -> None:
    raw = transformers_config(tiny_config | {"tie_word_embeddings": False}, tied=True)
    assert raw["tie_word_embeddings"] is True
    assert parse_config(raw, source="config.json").text.tie_word_embeddings


def test_a_tower_that_timm_cannot_build_has_no_transformers_layout(tiny_config) -> None:
    tower = tiny_config["mm_vision_config"] | {"head_dim": 64}
    with pytest.raises(CheckpointError, match="64 channels"):
        transformers_config(tiny_config | {"mm_vision_config": tower})


def test_transformers_reads_the_config_and_what_it_saves_is_read_back() -> None:
    from transformers import FastVlmConfig

    raw = transformers_config(apple_config(size_named("0.5b")))
    theirs = FastVlmConfig.from_dict(json.loads(json.dumps(raw)))
    assert theirs.vision_config.architecture == "fastvit_mci3"
    assert theirs.vision_config.hidden_size == 3072
    assert theirs.text_config.num_key_value_heads == 2
    saved = parse_config(json.loads(theirs.to_json_string()), source="saved")
    assert same_model(saved, parse_config(raw, source="config.json"))


def test_a_missing_folder_a_missing_config_and_broken_json_are_told_apart(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        load_config(tmp_path)
