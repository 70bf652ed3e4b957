"""Write a trained model as a checkpoint in Apple's layout, float16."""

import json
from pathlib import Path

import torch

from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import to_module
from reference.fastvlm import FastVLM


def save_checkpoint(model: FastVLM, raw_config: dict[str, object], out: Path) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors` into `out`.

    Args:
        model: folded (see `train_form.fold`), in evaluation mode.
        raw_config: the content of `config.json` that `model` was built from.
        out: an existing directory, which holds the tokenizer already.
    """
    from safetensors.torch import save_file

    state = model.state_dict()
    tensors = {}
    for name in expected_tensors(model.config):
        tensor = state[to_module(name)]
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
            if not bool(torch.isfinite(tensor).all()):
                raise AssertionError(f"{name} does not fit float16")
        tensors[name] = tensor.contiguous()
    partial = out / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors creates files that only their owner can read
    partial.rename(out / "model.safetensors")
    generation = {
        "bos_token_id": raw_config["bos_token_id"],
        "do_sample": False,
        "eos_token_id": raw_config["eos_token_id"],
        "max_new_tokens": 128,
    }
    for name, content in (("config.json", raw_config), ("generation_config.json", generation)):
        (out / name).write_text(f"{json.dumps(content, indent=2)}\n", encoding="utf-8")
