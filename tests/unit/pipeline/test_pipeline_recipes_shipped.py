"""The recipes that come with the project are good, and say what their comments promise."""

from pathlib import Path

import pytest

from fastvlm_compile.plan import make_plan, parity_stages
from fastvlm_compile.recipe import COMPONENTS, OnnxTarget, Recipe, load_recipe
from fastvlm_compile.stages import checkpoint, coreml, golden, onnx, parity
from fastvlm_compile.structure import from_plain, to_plain

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(params=["tiny", "0.5b"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(RECIPES / f"{request.param}.yaml")


def test_every_variant_that_can_be_measured_has_a_gate_on_every_component(recipe: Recipe) -> None:
    judged = {(gate.target, gate.variant, gate.component) for gate in recipe.gates}
    for target, variants in recipe.targets.variants().items():
        for variant in variants:
            assert judged >= {(target, variant, component) for component in COMPONENTS[target]}


def test_every_key_of_a_recipe_is_explained_in_the_tiny_one() -> None:
    text = (RECIPES / "tiny.yaml").read_text()
    recipe = load_recipe(RECIPES / "tiny.yaml")
    for value in (recipe, recipe.checkpoint, recipe.image, recipe.goldens, recipe.targets):
        for name in vars(value):
            assert name in text, f"{name} of {type(value).__name__}"


def test_every_stage_of_a_plan_is_a_function_that_takes_its_config(recipe: Recipe) -> None:
    modules = {m.__name__: m for m in (checkpoint, coreml, golden, onnx, parity)}
    plan = make_plan(recipe, weights=None if recipe.checkpoint.synthetic else Path("weights"))
    for stage in plan.stages:
        module, _, name = stage.function.partition(":")
        function = getattr(modules[module], name)
        assert function.__annotations__["config"] is type(stage.config)
        # And the config survives its way into the worker.
        assert from_plain(to_plain(stage.config), type(stage.config)) == stage.config


def test_the_stages_that_are_judged_are_planned(recipe: Recipe) -> None:
    plan = make_plan(recipe, weights=Path("weights"))
    assert set(parity_stages(recipe)) <= {stage.name for stage in plan.stages}


def test_the_opsets_that_a_recipe_may_name_are_those_that_are_exported() -> None:
    from fastvlm_compile.export.onnx.graph import MAX_OPSET, MIN_OPSET

    opsets = OnnxTarget.__annotations__["opset"].__args__
    assert opsets == tuple(range(MIN_OPSET, MAX_OPSET + 1))
