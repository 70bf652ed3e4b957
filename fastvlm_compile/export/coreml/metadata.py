"""What a package tells whoever opens it in Xcode."""

from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.contract import IMAGE_FEATURES, IMAGES
from reference.config import VisionConfig

if TYPE_CHECKING:
    from coremltools.models import MLModel

METADATA_PREFIX = "fastvlm."
IMAGE_SIZES = METADATA_PREFIX + "image_sizes"
"""All sizes of a package that has a function for each; absent where there is one."""


def describe(model: "MLModel", vision: VisionConfig, *, precision: str) -> None:
    """Describe the package, its input and its output; no author, no date."""
    size, tokens, channels = vision.image_size, vision.num_tokens, vision.out_channels
    model.short_description = (
        f"FastViTHD, the vision encoder of FastVLM, for images of {size} x {size} "
        f"({precision} inside, float32 outside)."
    )
    model.input_description[IMAGES] = (
        f"One RGB image, planes of {size} x {size}, values from 0 to 1 "
        "(no mean, no standard deviation)."
    )
    model.output_description[IMAGE_FEATURES] = (
        f"{tokens} feature rows of {channels} channels, row by row of the image, before FastVLM's "
        "projector."
    )
    contract = {
        "image_size": str(size),
        "num_tokens": str(tokens),
        "channels": str(channels),
        "color": "RGB",
        "range": "0..1",
        "mean": "0",
        "std": "1",
        "precision": precision,
    }
    for key, value in contract.items():
        model.user_defined_metadata[METADATA_PREFIX + key] = value
