"""What part a tensor plays: the predicate that policies are written in."""

from typing import Literal

from fastvlm_compile.quantize.scheme import Shape
from reference.checkpoint.names import (
    EMBED_TOKENS,
    HEAD_PROJECTION,
    LM_HEAD,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
)

Role = Literal[
    "embedding",
    "head",
    "language",
    "projector",
    "vision_linear",
    "vision_pointwise",
    "vision_dense",
    "vision_depthwise",
    "other",
]
"""`other` is what no policy quantizes: norms, biases, scales, counters, the unused head."""


def role_of(name: str, shape: Shape) -> Role:
    """The role of a tensor by its canonical name and shape."""
    if not name.endswith(".weight") or len(shape) not in (2, 4) or name == HEAD_PROJECTION:
        return "other"
    if name == EMBED_TOKENS:
        return "embedding"
    if name == LM_HEAD:
        return "head"
    if name.startswith(PROJECTOR_PREFIX):
        return "projector"
    if not name.startswith(VISION_PREFIX):
        return "language"
    return "vision_linear" if len(shape) == 2 else _convolution(shape)


def _convolution(shape: Shape) -> Role:
    _, inputs, height, width = shape
    if height == width == 1:
        return "vision_pointwise"
    return "vision_depthwise" if inputs == 1 else "vision_dense"
