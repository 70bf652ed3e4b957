"""The licence that is told is that of the weights that are in the bundle."""

from dataclasses import replace
from pathlib import Path

import pytest

from fastvlm_compile.bundle.licence import APPLE, RANDOM, TINY, weights_licence
from fastvlm_compile.recipe_file import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_tiny_weights_are_our_own() -> None:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    assert weights_licence(recipe, synthetic=False, replaced=False) == TINY


@pytest.mark.parametrize("name", ["tiny", "0.5b"])
def test_weights_that_are_given_instead_are_taken_for_apples(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert weights_licence(recipe, synthetic=False, replaced=True) == APPLE


def test_random_weights_are_nobodys() -> None:
    recipe = load_recipe(RECIPES / "0.5b.yaml")
    assert weights_licence(recipe, synthetic=True, replaced=False) == RANDOM


def test_a_recipe_may_name_the_licence_of_its_own_weights() -> None:
    recipe = replace(load_recipe(RECIPES / "tiny.yaml"), license="apache-2.0")
    assert weights_licence(recipe, synthetic=False, replaced=False) == "apache-2.0"
    silent = replace(recipe, license=None)
    assert weights_licence(silent, synthetic=False, replaced=False) == APPLE
