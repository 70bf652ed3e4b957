"""Tensor names of the two checkpoint layouts, as data.

Apple's names are the canonical ones: everything else in the project speaks them. The module of
this reference differs from them by a prefix only, the `transformers` layout by the tables below
(`transformers` 5, `FastVlmForConditionalGeneration`, and timm's `fastvit.py`).
"""

import re

from reference.config import Layout
from reference.errors import CheckpointError

VISION_PREFIX = "model.vision_tower.vision_tower.model."
PROJECTOR_PREFIX = "model.mm_projector."
HEAD_PROJECTION = VISION_PREFIX + "head.proj"
EMBED_TOKENS = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"

MODULE_PREFIXES = (
    (VISION_PREFIX, "vision."),
    (PROJECTOR_PREFIX, "projector."),
    ("lm_head.", "language.lm_head."),
    ("model.", "language."),
)
"""Canonical prefix -> prefix in `FastVLM`'s state dict; the first match counts."""

_TIMM_PREFIX = "model.vision_tower.timm_model."

_TIMM_NETWORK = (
    "stages.0.blocks",
    "stages.1.downsample",
    "stages.1.blocks",
    "stages.2.downsample",
    "stages.2.blocks",
    "stages.3.downsample",
    "stages.3.pos_emb",
    "stages.3.blocks",
    "stages.4.downsample",
    "stages.4.pos_emb",
    "stages.4.blocks",
)
"""timm's name of `network.N`."""

_TIMM_PARTS = (
    (re.compile(r"^patch_embed\."), "stem."),
    (re.compile(r"^conv_exp\.se\.reduce\."), "final_conv.se.fc1."),
    (re.compile(r"^conv_exp\.se\.expand\."), "final_conv.se.fc2."),
    (re.compile(r"^conv_exp\."), "final_conv."),
    (re.compile(r"\.convffn\."), ".mlp."),
    (re.compile(r"\.lkb_reparam\."), ".reparam_conv."),
    (re.compile(r"\.(layer_scale(?:_[12])?)$"), r".\1.gamma"),
)

_TRANSFORMERS_PREFIXES = (
    (PROJECTOR_PREFIX + "0.", "model.multi_modal_projector.linear_1."),
    (PROJECTOR_PREFIX + "2.", "model.multi_modal_projector.linear_2."),
    (LM_HEAD, LM_HEAD),
    ("model.", "model.language_model."),
)


def to_module(name: str) -> str:
    """Canonical tensor name -> name in `FastVLM`'s state dict."""
    for prefix, module_prefix in MODULE_PREFIXES:
        if name.startswith(prefix):
            return module_prefix + name.removeprefix(prefix)
    raise CheckpointError(f"tensor {name!r} belongs to no part of FastVLM")


def to_layout(name: str, layout: Layout) -> str | None:
    """Canonical tensor name -> its name in `layout`, None where that layout has no place for it.

    Only `head.proj` has none: timm builds the tower without a head.
    """
    if layout == "apple":
        return name
    if name == HEAD_PROJECTION:
        return None
    if name.startswith(VISION_PREFIX):
        return _TIMM_PREFIX + _to_timm(name.removeprefix(VISION_PREFIX))
    for prefix, other in _TRANSFORMERS_PREFIXES:
        if name.startswith(prefix):
            return other + name.removeprefix(prefix)
    raise CheckpointError(f"tensor {name!r} belongs to no part of FastVLM")


def _to_timm(name: str) -> str:
    if name.startswith("network."):
        _, index, rest = name.split(".", 2)
        name = f"{_TIMM_NETWORK[int(index)]}.{rest}"
    for pattern, replacement in _TIMM_PARTS:
        name = pattern.sub(replacement, name)
    return name
