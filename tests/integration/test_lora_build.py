"""`build --checkpoint ADAPTER`: the bundle holds the merged weights and names no folder of ours."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvlm_compile.cli import run

TINY = Path(__file__).parents[2] / "recipes" / "tiny-checkpoint"
NAME = "model.layers.2.self_attn.q_proj"
RECIPE = """\
schema: 1
name: tuned
checkpoint:
  path: {path}
image: {{size: 256, fit: pad, position: before}}
context_length: 512
goldens: {{scenes: 1, photographs: 0, prompts: [Hello], max_new_tokens: 2, task_questions: 0}}
targets: {{torch: {{}}}}
gates: []
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Changes one matrix of one layer."""
    folder = tmp_path / "lora"
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "layers_to_transform": [2],
        "base_model_name_or_path": str(TINY),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    matrices = {
        f"base_model.model.{NAME}.lora_A.weight": torch.full((2, 128), 0.125),
        f"base_model.model.{NAME}.lora_B.weight": torch.full((128, 2), 0.25),
    }
    save_file(matrices, folder / "adapter_model.safetensors")
    return folder


def test_a_bundle_of_a_fine_tune_holds_the_merged_weights(adapter, tmp_path, capsys) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.format(path=TINY))
    command = ["build", str(recipe), "--store", str(tmp_path / "store"), "--out", str(out)]
    assert run([*command, "--checkpoint", str(adapter)]) == 0
    assert "weights                     built" in capsys.readouterr().err
    found = load_file(out / "torch" / "model.safetensors")
    base = load_file(TINY / "model.safetensors")
    weight = f"{NAME}.weight"
    # scale 4 / 2, and two products of 1/8 and 1/4 in each sum
    expected = (base[weight].float() + 2 * 2 * 0.125 * 0.25).half()
    assert torch.equal(found[weight], expected)
    assert all(torch.equal(found[name], base[name]) for name in base if name != weight)
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert run([*command, "--checkpoint", str(adapter)]) == 0
    assert "weights                     hit" in capsys.readouterr().err
