"""Loads a checkpoint with transformers and asks it: transformers_generate.py FOLDER CASES_JSON OUT.

The last line of stdout is a JSON object: `version`, `timm`, `config` and `model` (the classes that
`from_pretrained` chose), `differences` (what the model's state dict and the folder's tensors do not
have in common, by name and shape), and `answers` by case. OUT becomes a safetensors file with the
image features of each case that has an image, float32 [T, H].
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)

AutoProcessorClass: Any = AutoProcessor  # whose methods have no types


def differences(folder: Path, model: PreTrainedModel) -> list[str]:
    """`name [shape]` of every tensor that only one side has; a tied head may be left out."""
    stored = set()
    # `convert` may leave a side file of tensors that transformers has no name for.
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(str(path), "pt") as file:
            names = file.keys()
            stored |= {f"{name} {file.get_slice(name).get_shape()}" for name in names}
    owned = {f"{name} {list(tensor.shape)}" for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        owned = {name for name in owned if not name.startswith("lm_head.")}
    return sorted(stored ^ owned)


def main(folder: Path, cases_file: Path, out: Path) -> dict[str, object]:
    """Loads config, model and processor; answers every case, greedily."""
    asked = json.loads(cases_file.read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    model, told = loaded
    processor = AutoProcessorClass.from_pretrained(folder)
    found = differences(folder, model)
    found += [f"{kind}: {name}" for kind, names in told.items() for name in names]
    answers: dict[str, list[int]] = {}
    features: dict[str, torch.Tensor] = {}
    for case in asked["cases"]:
        images = None
        if case["image"]:
            images = Image.open(cases_file.parent / case["image"]).convert("RGB")
        inputs = processor(images=images, text=case["prompt"], return_tensors="pt")
        with torch.inference_mode():
            if images is not None:
                encoded = model.get_image_features(inputs["pixel_values"], return_dict=True)
                features[case["id"]] = encoded.pooler_output[0].contiguous()
            tokens = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=asked["max_new_tokens"],
                eos_token_id=asked["eos_token_ids"],
            )
        answers[case["id"]] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    save_file(features, out)
    return {
        "version": importlib.metadata.version("transformers"),
        "timm": importlib.metadata.version("timm"),
        "config": type(config).__name__,
        "model": type(model).__name__,
        "differences": found,
        "answers": answers,
    }


if __name__ == "__main__":
    document = main(*(Path(argument) for argument in sys.argv[1:4]))
    sys.stdout.write(f"{json.dumps(document)}\n")
