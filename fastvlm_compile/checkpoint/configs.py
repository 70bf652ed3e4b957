"""`config.json` in both layouts: of a released size, and translated from one layout to the other.

Sources: the config of `apple/FastVLM-*`, and what `FastVlmConfig` of `transformers` 5 saves for the
converted checkpoints.
"""

from collections.abc import Mapping
from dataclasses import replace

from fastvlm_compile.checkpoint.sizes import ModelSize
from reference.config import FastVLMConfig, VisionConfig, parse_config
from reference.errors import CheckpointError

RawConfig = Mapping[str, object]
"""A decoded `config.json`; `reference.config.parse_config` gives it types."""

_TIMM_HEAD_DIM = 32

_TEXT_KEYS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_theta",
    "sliding_window",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
"""Keys that Apple keeps at the top and `transformers` in `text_config`."""


def apple_config(size: ModelSize, *, image_size: int = 1024) -> dict[str, object]:
    """`config.json` of a size, with the keys and values of Apple's files."""
    return {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": size.num_regular_tokens,
        "eos_token_id": size.num_regular_tokens + 2,
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": size.hidden_size,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "initializer_range": 0.02,
        "intermediate_size": size.intermediate_size,
        "max_position_embeddings": 32768,
        "max_window_layers": size.num_hidden_layers,
        "mm_hidden_size": VisionConfig(image_size=image_size).out_channels,
        "mm_patch_merge_type": "flat",
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"mobileclip_l_{image_size}",
        "model_type": "llava_qwen2",
        "num_attention_heads": size.num_attention_heads,
        "num_hidden_layers": size.num_hidden_layers,
        "num_key_value_heads": size.num_key_value_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": size.sliding_window,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 8192,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float16",
        "transformers_version": "4.39.3",
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": True,
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": size.vocab_size,
    }


def to_transformers_config(
    raw: RawConfig, *, source: str, tied: bool, image_token_id: int
) -> dict[str, object]:
    """Apple's config as `FastVlmConfig` of `transformers` wants it.

    Args:
        raw: Apple's config.
        source: what to call it in messages.
        tied: whether the output head is the embedding, as the tensors say.
        image_token_id: id of `<image>`.

    Raises:
        ConfigError: it is not a FastVLM config.
        CheckpointError: timm's tower cannot be scaled to what it asks for.
    """
    config = parse_config(raw, source=source)
    text = {key: raw[key] for key in _TEXT_KEYS if key in raw}
    text |= {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "tie_word_embeddings": tied,
    }
    dtype = raw.get("torch_dtype", raw.get("dtype", "float16"))
    text["dtype"] = dtype
    return {
        "architectures": ["FastVlmForConditionalGeneration"],
        "dtype": dtype,
        "image_seq_length": config.vision.num_tokens,
        "image_token_index": image_token_id,
        "model_type": "fast_vlm",
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": dict(sorted(text.items())),
        "tie_word_embeddings": tied,
        "vision_config": _timm_config(config.vision, dtype, source),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }


def to_apple_config(raw: RawConfig, *, source: str, tied: bool) -> dict[str, object]:
    """A `transformers` config as Apple's code wants it.

    Args:
        raw: the config of `FastVlmForConditionalGeneration`.
        source: what to call it in messages.
        tied: whether the output head is the embedding, as the tensors say.

    Raises:
        ConfigError: it is not a FastVLM config.
    """
    config = parse_config(raw, source=source)
    inner = raw["text_config"]
    assert isinstance(inner, Mapping), "parse_config has read it as an object"
    text = {key: inner[key] for key in _TEXT_KEYS if key in inner}
    vision, qwen2 = config.vision, config.text
    apple: dict[str, object] = {
        **text,
        "architectures": ["LlavaQwen2ForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": vision.out_channels,
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"mobileclip_l_{vision.image_size}",
        "model_type": "llava_qwen2",
        "rope_theta": qwen2.rope_theta,
        "tie_word_embeddings": tied,
        "tokenizer_model_max_length": min(8192, qwen2.max_position_embeddings),
        "tokenizer_padding_side": "right",
        "torch_dtype": raw.get("dtype", raw.get("torch_dtype", "float16")),
        "use_mm_proj": True,
    }
    if vision != VisionConfig(image_size=vision.image_size):
        apple["mm_vision_config"] = {
            "depths": list(vision.depths),
            "widths": list(vision.widths),
            "mlp_ratio": vision.mlp_ratio,
            "head_dim": vision.head_dim,
            "projection_dim": vision.projection_dim,
        }
    return dict(sorted(apple.items()))


def same_model(one: FastVLMConfig, other: FastVLMConfig) -> bool:
    """Whether two configs, in whatever layouts, promise tensors of the same computation.

    What only one layout can say (the fit of images, the context length, the width of the unused
    head, a tie that the tensors decide) does not count.
    """
    return _computation(one) == _computation(other)


def _computation(config: FastVLMConfig) -> tuple[object, ...]:
    vision = replace(config.vision, projection_dim=VisionConfig.projection_dim)
    return vision, replace(config.text, tie_word_embeddings=False)


def _timm_config(vision: VisionConfig, dtype: object, source: str) -> dict[str, object]:
    if vision.head_dim != _TIMM_HEAD_DIM:
        raise CheckpointError(
            f"{source}: the tower's attention heads have {vision.head_dim} channels, "
            f"timm's have {_TIMM_HEAD_DIM}",
            hint="this tower has no transformers layout; keep it in Apple's",
        )
    arguments: dict[str, object] = {"inference_mode": True}
    if vision != VisionConfig(image_size=vision.image_size, projection_dim=vision.projection_dim):
        arguments |= {
            "layers": list(vision.depths),
            "embed_dims": list(vision.widths),
            "mlp_ratios": [vision.mlp_ratio] * len(vision.depths),
        }
    return {
        "architecture": "fastvit_mci3",
        "do_pooling": True,
        "dtype": dtype,
        "global_pool": "avg",
        "hidden_size": vision.out_channels,
        "initializer_range": 0.02,
        "label_names": [],
        "model_args": arguments,
        "model_type": "timm_wrapper",
        "num_classes": 0,
        "num_features": vision.out_channels,
    }
