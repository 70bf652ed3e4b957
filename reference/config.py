"""What a FastVLM checkpoint's `config.json` says, in one typed form for both layouts.

Every key is used, or listed in `config_ignored.py` because it does not change the computation;
anything else is an error, so that a checkpoint which computes something different is never run
as if it did not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference.config_ignored import (
    IGNORED_APPLE_KEYS,
    IGNORED_COMMON_KEYS,
    IGNORED_QWEN2_KEYS,
    IGNORED_TIMM_KEYS,
    IGNORED_TRANSFORMERS_KEYS,
)
from reference.config_reader import ConfigReader
from reference.errors import CheckpointError, ConfigError

Layout = Literal["apple", "transformers"]
ImageAspectRatio = Literal["pad", "crop"]

PATCH_SIZE = 64
"""Pixels per side that become one token: the stem and the downsamplings halve six times."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """FastViTHD: five stages, RepMixer in all but the last two, which use attention.

    The defaults are those of the released models (FastVLM, arXiv 2412.13303, section 3).
    """

    image_size: int
    depths: tuple[int, ...] = (2, 12, 24, 4, 2)
    widths: tuple[int, ...] = (96, 192, 384, 768, 1536)
    mlp_ratio: int = 4
    head_dim: int = 32
    projection_dim: int = 768
    """Columns of `head.proj`, which the file holds and FastVLM does not use."""

    @property
    def out_channels(self) -> int:
        """Channels of the feature map: `conv_exp` doubles the last width."""
        return 2 * self.widths[-1]

    @property
    def grid(self) -> int:
        """Tokens per side of the square image."""
        return self.image_size // PATCH_SIZE

    @property
    def num_tokens(self) -> int:
        """Tokens that one image becomes."""
        return self.grid**2


@dataclass(frozen=True, kw_only=True)
class Qwen2Config:
    """The language model, in the terms of Hugging Face's Qwen2."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    """What the config claims; the tensors decide (see `Checkpoint.tied`)."""

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class FastVLMConfig:
    """A whole FastVLM, whichever layout its files use."""

    layout: Layout
    vision: VisionConfig
    text: Qwen2Config
    image_aspect_ratio: ImageAspectRatio
    image_token_id: int | None
    """The id of `<image>` where the config names one; prompts may use -200 in any case."""
    eos_token_ids: tuple[int, ...]
    context_length: int


def load_config(checkpoint_dir: Path) -> FastVLMConfig:
    """Read `config.json` of a checkpoint directory.

    Raises:
        CheckpointError: the directory or its `config.json` is missing or is not JSON.
        ConfigError: the config asks for something FastVLM is not.
    """
    return parse_config(
        read_config_json(checkpoint_dir), source=str(checkpoint_dir / "config.json")
    )


def read_config_json(checkpoint_dir: Path) -> dict[str, object]:
    """Return the raw mapping of `config.json`, for those who write it again unchanged."""
    path = checkpoint_dir / "config.json"
    if not checkpoint_dir.is_dir():
        raise CheckpointError(f"{checkpoint_dir}: there is no such checkpoint directory")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{checkpoint_dir}: no config.json, so this is not a checkpoint",
            hint="give the directory that holds config.json and the weights",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(raw).__name__}")
    return raw


def parse_config(raw: Mapping[str, object], *, source: str) -> FastVLMConfig:
    """Turn the mapping of a `config.json` into a `FastVLMConfig`.

    Args:
        raw: the decoded JSON object, in either layout.
        source: what to call it in messages, usually its path.

    Raises:
        ConfigError: a key is unknown, missing, of the wrong type, or names a variant of the
            architecture that this reference does not compute.
    """
    reader = ConfigReader(raw, source=source)
    model_type = reader.choice("model_type", ("llava_qwen2", "fast_vlm"))
    config = _parse_apple(reader) if model_type == "llava_qwen2" else _parse_transformers(reader)
    _check_consistency(config, source)
    return config


def _parse_apple(reader: ConfigReader) -> FastVLMConfig:
    image_size = _image_size_of_tower(reader)
    vision = _parse_apple_vision(reader, image_size)
    reader.choice("mm_projector_type", ("mlp2x_gelu",))
    reader.choice("mm_patch_merge_type", ("flat",), default="flat")
    reader.choice("mm_vision_select_feature", ("patch",), default="patch")
    for flag in ("mm_use_im_start_end", "mm_use_im_patch_token"):
        reader.fixed(flag, expected=False)
    reader.fixed("use_mm_proj", expected=True)
    mm_hidden_size = reader.integer("mm_hidden_size")
    if mm_hidden_size != vision.out_channels:
        raise ConfigError(
            f"{reader.source}: mm_hidden_size is {mm_hidden_size}, "
            f"but the tower's feature map has {vision.out_channels} channels"
        )
    aspect = reader.choice("image_aspect_ratio", ("pad", "crop", "square"), default="pad")
    text = _parse_qwen2(reader)
    config = FastVLMConfig(
        layout="apple",
        vision=vision,
        text=text,
        image_aspect_ratio="pad" if aspect == "pad" else "crop",
        image_token_id=reader.optional_integer("image_token_index"),
        eos_token_ids=reader.token_ids("eos_token_id"),
        context_length=reader.integer(
            "tokenizer_model_max_length", default=text.max_position_embeddings
        ),
    )
    reader.ignore(*IGNORED_APPLE_KEYS, *IGNORED_QWEN2_KEYS)
    reader.finish()
    return config


def _image_size_of_tower(reader: ConfigReader) -> int:
    tower = reader.string("mm_vision_tower")
    prefix, _, size = tower.rpartition("_")
    if prefix != "mobileclip_l" or not size.isdigit() or int(size) % PATCH_SIZE or not int(size):
        raise ConfigError(
            f"{reader.source}: mm_vision_tower {tower!r} is not a FastViTHD",
            hint="known: mobileclip_l_<image size>, the size a multiple of 64, "
            "for example mobileclip_l_1024",
        )
    return int(size)


def _parse_apple_vision(reader: ConfigReader, image_size: int) -> VisionConfig:
    """`mm_vision_config` is ours: it scales the tower; without it the tower is FastViTHD."""
    nested = reader.optional_section("mm_vision_config")
    if nested is None:
        return VisionConfig(image_size=image_size)
    vision = VisionConfig(
        image_size=image_size,
        depths=nested.integers("depths"),
        widths=nested.integers("widths"),
        mlp_ratio=nested.integer("mlp_ratio", default=4),
        head_dim=nested.integer("head_dim", default=32),
        projection_dim=nested.integer("projection_dim", default=768),
    )
    nested.finish()
    return vision


def _parse_transformers(reader: ConfigReader) -> FastVLMConfig:
    tower = reader.section("vision_config")
    tower.choice("model_type", ("timm_wrapper",), default="timm_wrapper")
    tower.choice("architecture", ("fastvit_mci3",))
    image_seq_length = reader.integer("image_seq_length")
    vision = _parse_timm(tower, image_seq_length)
    reader.choice("projector_hidden_act", ("gelu",), default="gelu")
    reader.fixed("multimodal_projector_bias", expected=True)
    reader.choice("vision_feature_select_strategy", ("full",), default="full")
    reader.fixed("vision_feature_layer", expected=-1)
    inner = reader.section("text_config")
    inner.choice("model_type", ("qwen2",), default="qwen2")
    tie = reader.optional_boolean("tie_word_embeddings")
    text = _parse_qwen2(inner, tie_default=bool(tie))
    eos = inner.token_ids("eos_token_id")
    inner.ignore(*IGNORED_QWEN2_KEYS)
    inner.finish()
    image_token = reader.optional_integer("image_token_index")
    image_token_id = reader.optional_integer("image_token_id")
    config = FastVLMConfig(
        layout="transformers",
        vision=vision,
        text=text,
        image_aspect_ratio="crop",
        image_token_id=image_token if image_token is not None else image_token_id,
        eos_token_ids=reader.token_ids("eos_token_id") or eos,
        context_length=text.max_position_embeddings,
    )
    reader.ignore(*IGNORED_TRANSFORMERS_KEYS, *IGNORED_COMMON_KEYS)
    reader.finish()
    return config


def _parse_timm(tower: ConfigReader, image_seq_length: int) -> VisionConfig:
    """timm's own defaults for `fastvit_mci3`, unless `model_args` scales the tower."""
    grid = round(image_seq_length**0.5)
    if grid < 1 or grid * grid != image_seq_length:
        raise ConfigError(
            f"{tower.source}: image_seq_length {image_seq_length} is not a square number of tokens"
        )
    vision = VisionConfig(image_size=grid * PATCH_SIZE)
    args = tower.optional_section("model_args")
    if args is not None:
        args.fixed("inference_mode", expected=True)
        ratios = args.integers("mlp_ratios", default=(vision.mlp_ratio,))
        if len(set(ratios)) != 1:
            raise ConfigError(f"{args.source}: mlp_ratios {list(ratios)} differ between stages")
        vision = VisionConfig(
            image_size=vision.image_size,
            depths=args.integers("layers", default=vision.depths),
            widths=args.integers("embed_dims", default=vision.widths),
            mlp_ratio=ratios[0],
        )
        args.finish()
    hidden = tower.integer("hidden_size", default=vision.out_channels)
    if hidden != vision.out_channels:
        raise ConfigError(
            f"{tower.source}: hidden_size is {hidden}, "
            f"but the tower's feature map has {vision.out_channels} channels"
        )
    tower.ignore(*IGNORED_TIMM_KEYS, *IGNORED_COMMON_KEYS)
    tower.finish()
    return vision


def _parse_qwen2(reader: ConfigReader, *, tie_default: bool = False) -> Qwen2Config:
    reader.choice("hidden_act", ("silu",), default="silu")
    reader.fixed("use_sliding_window", expected=False)
    heads = reader.integer("num_attention_heads")
    tie = reader.optional_boolean("tie_word_embeddings")
    return Qwen2Config(
        vocab_size=reader.integer("vocab_size"),
        hidden_size=reader.integer("hidden_size"),
        intermediate_size=reader.integer("intermediate_size"),
        num_hidden_layers=reader.integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=reader.integer("num_key_value_heads", default=heads),
        rope_theta=reader.rope_theta(),
        rms_norm_eps=reader.number("rms_norm_eps", default=1e-6),
        max_position_embeddings=reader.integer("max_position_embeddings", default=32768),
        tie_word_embeddings=tie_default if tie is None else tie,
    )


def _check_consistency(config: FastVLMConfig, source: str) -> None:
    vision, text = config.vision, config.text
    if len(vision.depths) != 5 or len(vision.widths) != 5:
        raise ConfigError(f"{source}: FastViTHD has five stages, depths and widths name others")
    for before, after in zip(vision.widths, vision.widths[1:], strict=False):
        if after % before:
            raise ConfigError(
                f"{source}: stage width {after} is not a multiple of {before}, "
                "as the grouped downsampling needs"
            )
    for width in vision.widths[3:]:
        if width % vision.head_dim:
            raise ConfigError(f"{source}: width {width} does not hold heads of {vision.head_dim}")
    if text.hidden_size % text.num_attention_heads or text.head_dim % 2:
        raise ConfigError(
            f"{source}: hidden_size {text.hidden_size} does not split into "
            f"{text.num_attention_heads} heads of even width"
        )
    if text.num_attention_heads % text.num_key_value_heads:
        raise ConfigError(
            f"{source}: {text.num_attention_heads} attention heads do not share "
            f"{text.num_key_value_heads} key-value heads evenly"
        )
