"""How images become pixels, in the words of `transformers`' processors.

Checkpoints and bundles hold the same two files. They can only describe the crop; a bundle that pads
says so in its manifest.
"""

from reference.config import PATCH_SIZE
from reference.prompt import IMAGE_TOKEN

_BICUBIC = 3
"""PIL's number of the bicubic filter."""


def preprocessor_config(image_size: int) -> dict[str, object]:
    """`preprocessor_config.json`: resize the shortest edge, crop the centre, scale to 0..1."""
    return {
        "crop_size": {"height": image_size, "width": image_size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [1.0, 1.0, 1.0],
        "processor_class": "LlavaProcessor",
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": image_size},
    }


def processor_config() -> dict[str, object]:
    """`processor_config.json`: the image token, and how many pixels per side become one."""
    return {
        "image_token": IMAGE_TOKEN,
        "num_additional_image_tokens": 0,
        "patch_size": PATCH_SIZE,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "full",
    }
