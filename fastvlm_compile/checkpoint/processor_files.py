"""The small files beside the weights: image processor, processor, generation settings, template."""

import json
from pathlib import Path

from fastvlm_compile.bundle.chat_template import chat_template
from fastvlm_compile.processor_config import preprocessor_config, processor_config
from reference.config import FastVLMConfig, Layout


def write_processor_files(directory: Path, config: FastVLMConfig, layout: Layout) -> None:
    """Write those that `layout` has and `directory` does not hold yet.

    Apple's layout has the image processor and the generation settings; `transformers` also wants
    `processor_config.json` and the chat template in a file of its own.
    """
    size = config.vision.image_size
    files: dict[str, object] = {
        "preprocessor_config.json": preprocessor_config(size),
        "generation_config.json": _generation_config(config),
    }
    if layout == "transformers":
        files["processor_config.json"] = processor_config()
        _write_absent(directory / "chat_template.jinja", chat_template("before"))
    for name, content in files.items():
        _write_absent(directory / name, json.dumps(content, indent=2) + "\n")


def _generation_config(config: FastVLMConfig) -> dict[str, object]:
    return {
        "do_sample": False,
        "eos_token_id": list(config.eos_token_ids),
        "transformers_version": "4.39.3",
    }


def _write_absent(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, encoding="utf-8")
