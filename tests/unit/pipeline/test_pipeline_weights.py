"""A missing checkpoint is told with the very command that fetches or makes it."""

import dataclasses
from pathlib import Path

import pytest

from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.recipe import CheckpointChoice, Recipe
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.weights import weights_folder

RECIPES = Path(__file__).parents[3] / "recipes"


def _recipe(**choice: str | Path) -> Recipe:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    return dataclasses.replace(recipe, checkpoint=CheckpointChoice(**choice))


def _missing(recipe: Recipe, chosen: Path | None = None) -> CheckpointMissingError:
    with pytest.raises(CheckpointMissingError) as caught:
        weights_folder(recipe, recipe_path=Path("recipes/a.yaml"), chosen=chosen)
    return caught.value


def test_a_synthetic_checkpoint_needs_no_folder() -> None:
    recipe = load_recipe(RECIPES / "0.5b.yaml")
    assert weights_folder(recipe, recipe_path=Path("r.yaml"), chosen=None) is None


def test_the_command_line_comes_before_the_recipe(tmp_path: Path) -> None:
    for name in ("named", "chosen"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    recipe = _recipe(path=tmp_path / "named")
    for chosen, expected in ((None, "named"), (tmp_path / "chosen", "chosen")):
        found = weights_folder(recipe, recipe_path=Path("r.yaml"), chosen=chosen)
        assert found == tmp_path / expected


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "top.yaml").write_text(f"name: top\nextend: {RECIPES / 'tiny.yaml'}\n")
    recipe = load_recipe(tmp_path / "top.yaml")
    assert recipe.checkpoint.path == RECIPES / "tiny-checkpoint"


@pytest.mark.parametrize("size", ["0.5b", "1.5b", "7b"])
def test_the_hint_fetches_or_makes_the_size_that_is_meant(size: str) -> None:
    error = _missing(_recipe(path=Path("x")), chosen=Path(f"weights/FastVLM-{size.upper()}"))
    folder = f"weights/FastVLM-{size.upper()}"
    assert error.message == f"{folder}: the checkpoint is missing: there is no such folder"
    assert error.hint.splitlines() == [
        f"fetch the released {size.upper()} model:",
        f"    fastvlm-compile checkpoint fetch {size}-stage3 --to {folder}",
        "or make one of its shapes with random weights:",
        f"    fastvlm-compile checkpoint synthesize --size {size} --seed 0 --layout apple "
        f"--out {folder}",
    ]


def test_the_hint_for_the_tiny_one_trains_it() -> None:
    hint = _missing(_recipe(path=Path("tiny-checkpoint"))).hint
    assert hint.splitlines()[-1].endswith("make train-tiny")


def test_a_checkpoint_of_the_hub_is_fetched_by_its_revision() -> None:
    error = _missing(_recipe(hub="apple/FastVLM-0.5B", revision="abc"))
    folder = "recipes/checkpoints/apple/FastVLM-0.5B@abc"
    assert error.hint == f"hf download apple/FastVLM-0.5B --revision abc --local-dir {folder}"


def test_a_folder_without_config_and_a_file_are_no_checkpoints(tmp_path: Path) -> None:
    assert "holds no config.json" in _missing(_recipe(path=Path("x")), chosen=tmp_path).message
    (tmp_path / "file").write_text("")
    message = _missing(_recipe(path=Path("x")), chosen=tmp_path / "file").message
    assert message.endswith("this is a file, not a folder")
