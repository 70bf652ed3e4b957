"""Input and output of `fastvithd.mlpackage`, as Apple's FastVLM app declares them.

The app traps at run time on anything else (apple/ml-fastvlm, `FastVLM.swift`).
"""

from dataclasses import dataclass
from typing import Literal

from reference.config import VisionConfig

Precision = Literal["float16", "float32"]
"""Of the computation and the stored weights; input and output are float32 in both."""

IMAGES = "images"
IMAGE_FEATURES = "image_features"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input or output of a fixed shape."""

    name: str
    shape: tuple[int, ...]
    dtype: Precision = "float32"


def vision_features(vision: VisionConfig) -> tuple[Feature, Feature]:
    """The input and the output of the vision package, for images of one size."""
    size = vision.image_size
    return (
        Feature(name=IMAGES, shape=(1, 3, size, size)),
        Feature(name=IMAGE_FEATURES, shape=(1, vision.num_tokens, vision.out_channels)),
    )
