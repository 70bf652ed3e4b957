"""A folder as Apple's app wants it, of a model of one small layer: every clause, few bytes."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from validation.consumers.apple_app_files import PACKAGE, WEIGHTS
from validation.consumers.apple_app_tensors import expected_tensors

IMAGE_ID = 323
_DTYPES = {"F16": np.float16, "U32": np.uint32}


def config_of(bits: int | None) -> dict[str, object]:
    return {
        "model_type": "llava_qwen2",
        "mm_hidden_size": 3072,
        "hidden_size": 128,
        "num_hidden_layers": 1,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 324,
        "image_token_index": IMAGE_ID,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        **({} if bits is None else {"quantization": {"group_size": 64, "bits": bits}}),
    }


def small_files() -> dict[str, dict[str, object]]:
    return {
        "preprocessor_config.json": {
            "image_mean": [0.0, 0.0, 0.0],
            "image_std": [1.0, 1.0, 1.0],
            "size": {"shortest_edge": 1024},
            "crop_size": {"height": 1024, "width": 1024},
            "processor_class": "LlavaProcessor",
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "num_additional_image_tokens": 0,
            "patch_size": 64,
        },
        "tokenizer_config.json": {
            "added_tokens_decoder": {str(IMAGE_ID): {"content": "<image>", "special": True}},
        },
        "tokenizer.json": {"added_tokens": [{"id": IMAGE_ID, "content": "<image>"}]},
    }


def write_folder(folder: Path, bits: int | None) -> Path:
    """Everything but the program inside the package."""
    (folder / PACKAGE).mkdir(parents=True)
    config = config_of(bits)
    for name, content in {"config.json": config, **small_files()}.items():
        write(folder, name, content)
    save_file(arrays_of(config), folder / WEIGHTS)
    return folder


def arrays_of(config: dict[str, object]) -> dict[str, np.ndarray]:
    return {
        name: np.zeros(stored.shape, dtype=_DTYPES[stored.dtype])
        for name, stored in expected_tensors(config).items()
    }


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
