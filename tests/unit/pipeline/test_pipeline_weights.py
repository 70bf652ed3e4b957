"""A missing checkpoint is told with the very command that fetches or makes it."""

import dataclasses
from pathlib import Path

import pytest

from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.recipe_checkpoint import (
    CheckpointChoice,
    ReleasedCheckpoint,
    SyntheticCheckpoint,
)
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.weights import stand_in_note, weights_folder, with_weights_used
from reference.errors import UserError

RECIPES = Path(__file__).parents[3] / "recipes"


def _recipe(**choice: object) -> Recipe:
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


RELEASED = ReleasedCheckpoint(size="7b", stage=2)
STANDS_IN = SyntheticCheckpoint(size="7b", seed=0, layout="apple")
FETCHED = Path("checkpoints/llava-fastvithd_7b_stage2")


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_released_checkpoint_is_taken_from_where_fetch_puts_it(working: Path) -> None:
    (working / FETCHED).mkdir(parents=True)
    (working / FETCHED / "config.json").write_text("{}")
    recipe = _recipe(released=RELEASED, synthetic=STANDS_IN)
    found = weights_folder(recipe, recipe_path=Path("recipes/7b.yaml"), chosen=None)
    assert found == FETCHED
    assert stand_in_note(recipe, weights=found) == ""
    assert with_weights_used(recipe, weights=found).checkpoint.synthetic is None


def test_random_weights_that_stand_in_are_told(working: Path) -> None:
    recipe = _recipe(released=RELEASED, synthetic=STANDS_IN)
    assert weights_folder(recipe, recipe_path=Path("r.yaml"), chosen=None) is None
    assert stand_in_note(recipe, weights=None) == (
        "checkpoints/llava-fastvithd_7b_stage2: the released checkpoint is not there, so random "
        "weights of its shapes are built instead, and the bundle says so; to fetch it: "
        "fastvlm-compile checkpoint fetch 7b-stage2"
    )
    assert with_weights_used(recipe, weights=None).checkpoint.released is None


def test_a_released_checkpoint_that_is_damaged_is_never_replaced_by_random_weights(
    working: Path,
) -> None:
    (working / FETCHED).mkdir(parents=True)
    error = _missing(_recipe(released=RELEASED, synthetic=STANDS_IN))
    assert "holds no config.json" in error.message
    assert "checkpoint fetch 7b-stage2" in error.hint


def test_without_anything_that_stands_in_a_released_checkpoint_must_be_there(
    working: Path,
) -> None:
    error = _missing(_recipe(released=RELEASED))
    assert error.message.startswith(f"{FETCHED}: the checkpoint is missing")


def test_what_stands_in_must_have_the_size_that_is_released() -> None:
    with pytest.raises(UserError, match=r"released 7b and synthetic 0\.5b"):
        CheckpointChoice(released=RELEASED, synthetic=dataclasses.replace(STANDS_IN, size="0.5b"))
