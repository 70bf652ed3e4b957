"""A fine-tune where a checkpoint is asked for: in plans, recipes and on the command line."""

import json
import shutil
from pathlib import Path

import pytest
from adapter_maker import merged_by_hand, write_adapter, write_config
from safetensors.torch import load_file

from fastvlm_compile.adapter.folder import is_adapter
from fastvlm_compile.cli import run
from fastvlm_compile.plan import make_plan
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.weights import base_folder, weights_folder
from reference.errors import CheckpointError

RECIPES = Path(__file__).parents[3] / "recipes"
TINY = RECIPES / "tiny-checkpoint"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora", TINY)


def test_only_a_folder_without_weights_of_its_own_is_an_adapter(adapter) -> None:
    assert is_adapter(adapter)
    assert not is_adapter(TINY)
    shutil.copy(TINY / "model.safetensors", adapter)
    assert not is_adapter(adapter)


def test_a_build_merges_first_and_its_key_covers_both(adapter, tmp_path, capsys) -> None:
    base = Path(shutil.copytree(TINY, tmp_path / "base"))
    command = ["plan", str(RECIPES / "tiny.yaml"), "--json", "--store", str(tmp_path / "store")]
    command += ["--checkpoint", str(adapter), "--base", str(base)]

    def key() -> str:
        assert run(command) == 0
        stages = json.loads(capsys.readouterr().out)["stages"]
        assert stages[0]["stage"] == "weights"
        return stages[0]["key"]

    keys = [key(), key()]
    write_config(adapter, lora_alpha=7)
    keys.append(key())
    (base / "generation_config.json").write_text("{}")
    keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_plan_names_both_folders_as_sources(adapter) -> None:
    plan = make_plan(load_recipe(RECIPES / "tiny.yaml"), weights=adapter, base=TINY)
    assert [(source.name, source.path) for source in plan.sources] == [
        ("adapter", adapter),
        ("base", TINY),
    ]
    assert plan.stages[0].function == "fastvlm_compile.stages.merge:merge"


def test_a_recipe_may_name_the_base(adapter, tmp_path) -> None:
    recipe_path = tmp_path / "tuned.yaml"
    recipe_path.write_text(
        f"name: tuned\nextend: {RECIPES / 'tiny.yaml'}\ncheckpoint:\n  path: lora\n  base: {TINY}\n"
    )
    recipe = load_recipe(recipe_path)
    weights = weights_folder(recipe, recipe_path=recipe_path, chosen=None)
    assert weights == adapter
    assert base_folder(recipe, weights=weights, chosen=None) == TINY
    assert base_folder(recipe, weights=weights, chosen=tmp_path) == tmp_path
    assert base_folder(recipe, weights=None, chosen=None) is None


def test_the_adapters_own_word_counts_where_it_is_a_folder_here(adapter, tmp_path) -> None:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    with pytest.raises(CheckpointError, match=r"_0\.5b_stage3, which is no folder"):
        base_folder(recipe, weights=adapter, chosen=None)
    shutil.copytree(TINY, tmp_path / "beside")
    write_config(adapter, base_model_name_or_path="../beside")
    assert base_folder(recipe, weights=adapter, chosen=None) == adapter / "../beside"


def test_a_base_for_whole_weights_is_a_mistake() -> None:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    for weights in (TINY, None):
        with pytest.raises(CheckpointError, match="the weights are whole"):
            base_folder(recipe, weights=weights, chosen=TINY)


def test_the_merge_command_writes_a_checkpoint(adapter, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    command = ["checkpoint", "merge", str(adapter), str(out), "--base", str(TINY)]
    assert run(command) == 0
    found = load_file(out / "model.safetensors")
    expected = merged_by_hand(TINY, 1.5)
    assert all((found[name] == tensor).all() for name, tensor in expected.items())
    assert run(["checkpoint", "inspect", str(out)]) == 0
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err


def test_inspect_tells_what_a_fine_tune_is(adapter, capsys) -> None:
    command = ["checkpoint", "inspect", str(adapter), "--base", str(TINY)]
    assert run(command) == 0
    out = capsys.readouterr().out
    assert "adapter       LoRA of rank 4, alpha 6, scale 1.5\n" in out
    assert "  adapted     12 (4 down_proj, 4 q_proj, 4 v_proj)\n" in out
    assert "  replaced    4" in out
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    assert found["merge"]["replaced"][0] == "model.mm_projector.0.bias"


def test_inspect_of_a_fine_tune_that_cannot_be_merged_exits_1(adapter, capsys) -> None:
    assert run(["checkpoint", "inspect", str(adapter)]) == 1
    captured = capsys.readouterr()
    assert "which is no folder here" in captured.out
    assert "cannot be merged" in captured.err


def test_convert_points_to_merge(adapter, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    assert run(["checkpoint", "convert", str(adapter), out, "--to", "transformers"]) == 2
    assert "checkpoint merge" in capsys.readouterr().err
