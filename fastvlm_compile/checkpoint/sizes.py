"""The sizes of FastVLM, as data: the released ones, and a small one for tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from reference.config import FastVLMConfig, VisionConfig
from reference.errors import CheckpointError

_QWEN2_ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_QWEN2_5_ADDED = (
    *_QWEN2_ADDED,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
"""The tokenizer of the 7B knows these too, which is why its `<image>` is 151665."""

QWEN2_TOKENS = 151643
"""Entries of Qwen2's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What distinguishes one size; the vision tower is the same in all."""

    label: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    """Rows of the embedding in Apple's file."""
    sliding_window: int
    added_tokens: tuple[str, ...]
    """Tokens behind those of the vocabulary, before `<image>`."""
    num_regular_tokens: int = QWEN2_TOKENS
    """Entries of the vocabulary, hence the id of `<|endoftext|>`."""


SIZES = (
    ModelSize(
        label="0.5B",
        num_hidden_layers=24,
        hidden_size=896,
        intermediate_size=4864,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
        sliding_window=32768,
        added_tokens=_QWEN2_ADDED,
    ),
    ModelSize(
        label="1.5B",
        num_hidden_layers=28,
        hidden_size=1536,
        intermediate_size=8960,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        sliding_window=32768,
        added_tokens=_QWEN2_ADDED,
    ),
    ModelSize(
        label="7B",
        num_hidden_layers=28,
        hidden_size=3584,
        intermediate_size=18944,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        sliding_window=131072,
        added_tokens=_QWEN2_5_ADDED,
    ),
    # The real tower before two layers of the 0.5B and few words, for consumers of one fixed tower.
    ModelSize(
        label="real-tower",
        num_hidden_layers=2,
        hidden_size=896,
        intermediate_size=4864,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=2112,
        sliding_window=32768,
        added_tokens=_QWEN2_ADDED,
        num_regular_tokens=2108,  # with the added tokens and `<image>`, a word for every row
    ),
)

SIZE_NAMES = tuple(size.label.lower() for size in SIZES)


def size_named(name: str) -> ModelSize:
    """The size that a user calls `name`, in any case.

    Raises:
        CheckpointError: there is none.
    """
    by_name: Mapping[str, ModelSize] = dict(zip(SIZE_NAMES, SIZES, strict=True))
    if name.lower() not in by_name:
        raise CheckpointError(
            f"there is no FastVLM of size {name!r}", hint=f"known: {', '.join(SIZE_NAMES)}"
        )
    return by_name[name.lower()]


def size_label(config: FastVLMConfig) -> str:
    """The label of the size whose architecture the config has, `0.5B` for one, else `other`.

    The vocabulary may differ, as converted checkpoints pad it, and so may the image size.
    """
    if config.vision != VisionConfig(image_size=config.vision.image_size):
        return "other"
    text = config.text
    for size in SIZES:
        if (
            text.num_hidden_layers == size.num_hidden_layers
            and text.hidden_size == size.hidden_size
            and text.intermediate_size == size.intermediate_size
            and text.num_attention_heads == size.num_attention_heads
            and text.num_key_value_heads == size.num_key_value_heads
        ):
            return size.label
    return "other"
