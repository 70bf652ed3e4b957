"""Writes LoRA fine-tunes as LLaVA's training does, of matrices that a test can compute with."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RANK, ALPHA = 4, 6.0
MODULES = ("q_proj", "v_proj", "down_proj")
PREFIX = "base_model.model."


def adapted_weights(base: Path) -> dict[str, torch.Tensor]:
    """The base's weights that the adapter changes, by their names."""
    ends = tuple(f".{module}.weight" for module in MODULES)
    weights = load_file(base / "model.safetensors")
    layers = {name: w for name, w in weights.items() if name.startswith("model.layers.")}
    return {name: weight for name, weight in layers.items() if name.endswith(ends)}


def make_matrices(base: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A [rank, in] and B [out, rank] for each adapted weight."""
    generator = torch.Generator().manual_seed(11)
    return {
        name: (
            torch.randn(RANK, weight.shape[1], generator=generator) * 0.1,
            torch.randn(weight.shape[0], RANK, generator=generator) * 0.1,
        )
        for name, weight in sorted(adapted_weights(base).items())
    }


def make_projector(base: Path) -> dict[str, torch.Tensor]:
    """The projector, trained whole."""
    weights = load_file(base / "model.safetensors")
    names = [name for name in weights if name.startswith("model.mm_projector.")]
    return {name: (weights[name].float() * 1.25 + 0.03125).bfloat16() for name in names}


def write_config(folder: Path, **changes: object) -> None:
    config = {
        "base_model_name_or_path": "checkpoints/llava-fastvithd_0.5b_stage3",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(MODULES),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))


def write_adapter(
    folder: Path, base: Path, *, pickled: bool = False, default: str = "", **changes: object
) -> Path:
    """A fine-tune's folder: adapter, projector, config; `changes` are of adapter_config.json.

    Args:
        folder: made.
        base: what it is "trained" on.
        pickled: whether the adapter is a .bin file; the projector is always one, as LLaVA's.
        default: `.default` for the names that old versions of PEFT write.
        changes: see above.
    """
    folder.mkdir()
    shutil.copyfile(base / "config.json", folder / "config.json")
    write_config(folder, **changes)
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b) in make_matrices(base).items():
        module = PREFIX + name.removesuffix(".weight")
        tensors[f"{module}.lora_A{default}.weight"] = a
        tensors[f"{module}.lora_B{default}.weight"] = b
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    trained = {PREFIX + name: tensor for name, tensor in make_projector(base).items()}
    torch.save(trained, folder / "non_lora_trainables.bin")
    return folder


def merged_by_hand(base: Path, scale: float) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint that the fine-tune stands for."""
    weights = load_file(base / "model.safetensors")
    for name, (a, b) in make_matrices(base).items():
        weights[name] = (weights[name].float() + scale * (b @ a)).to(weights[name].dtype)
    for name, values in make_projector(base).items():
        weights[name] = values.to(weights[name].dtype)
    return weights
