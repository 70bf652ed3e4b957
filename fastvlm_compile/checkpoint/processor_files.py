"""The small files beside the weights: image processor, processor, generation settings, template."""

import json
from pathlib import Path

from fastvlm_compile.bundle.chat_template import chat_template
from reference.config import PATCH_SIZE, FastVLMConfig, Layout

_BICUBIC = 3
"""PIL's number of the bicubic filter."""


def write_processor_files(directory: Path, config: FastVLMConfig, layout: Layout) -> None:
    """Write those that `layout` has and `directory` does not hold yet.

    Apple's layout has the image processor and the generation settings; `transformers` also wants
    `processor_config.json` and the chat template in a file of its own.
    """
    size = config.vision.image_size
    files: dict[str, object] = {
        "preprocessor_config.json": _preprocessor_config(size),
        "generation_config.json": _generation_config(config),
    }
    if layout == "transformers":
        files["processor_config.json"] = _processor_config()
        _write_absent(directory / "chat_template.jinja", chat_template("before"))
    for name, content in files.items():
        _write_absent(directory / name, json.dumps(content, indent=2) + "\n")


def _preprocessor_config(image_size: int) -> dict[str, object]:
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


def _processor_config() -> dict[str, object]:
    return {
        "image_token": "<image>",
        "num_additional_image_tokens": 0,
        "patch_size": PATCH_SIZE,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "full",
    }


def _generation_config(config: FastVLMConfig) -> dict[str, object]:
    return {
        "do_sample": False,
        "eos_token_id": list(config.eos_token_ids),
        "transformers_version": "4.39.3",
    }


def _write_absent(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, encoding="utf-8")
