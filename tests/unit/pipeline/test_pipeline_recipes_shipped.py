"""The recipes that come with the project are good, and say what their comments promise."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fastvlm_compile.bundle_plan import recipe_text
from fastvlm_compile.plan import make_plan, parity_stages
from fastvlm_compile.recipe import OnnxTarget, Recipe, components_of, quantization_of
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.structure import from_plain, to_plain

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(params=["tiny", "0.5b"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(RECIPES / f"{request.param}.yaml")


def test_every_variant_that_can_be_measured_has_a_gate_on_every_component(recipe: Recipe) -> None:
    judged = {(gate.target, gate.variant, gate.component) for gate in recipe.gates}
    for target, variants in recipe.targets.variants().items():
        for variant in variants:
            wholes = {
                name.removesuffix("_conversion").removesuffix("_precision")
                for name in components_of(recipe.targets, target, variant)
            }
            if quantization_of(target, variant) and not recipe.goldens.task_questions:
                # Answers of random weights turn with any quantization, and say nothing of it.
                wholes.remove("end_to_end")
            for whole in wholes:
                # Of a quantized variant the part that is not compression may be judged instead: the
                # compression is judged on the reference.
                names = (whole, f"{whole}_conversion", f"{whole}_precision")
                assert judged & {(target, variant, name) for name in names}, (variant, whole)


@pytest.mark.parametrize("name", ["tiny", "real-tower", "0.5b", "1.5b", "7b"])
def test_the_recipe_that_a_bundle_keeps_is_read_again(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    again = from_plain(yaml.safe_load(recipe_text(recipe)), Recipe)
    assert again == replace(recipe, extend="", checkpoint=again.checkpoint)


def test_every_quantization_is_judged_on_the_reference(recipe: Recipe) -> None:
    judged = {(gate.variant, gate.metric) for gate in recipe.gates if gate.target == "reference"}
    for name in recipe.targets.measured().get("reference", ()):
        if recipe.goldens.task_questions:
            assert {(name, "kl_mean"), (name, "task_accuracy_drop")} <= judged
        else:
            assert (name, "relative_l2") in judged


def test_a_gate_of_uncompressed_packages_is_on_both_parts_of_their_error(recipe: Recipe) -> None:
    judged = {(gate.variant, gate.component) for gate in recipe.gates if gate.target == "coreml"}
    for component in components_of(recipe.targets, "coreml", "float16"):
        assert ("float16", component) in judged


def test_the_whole_model_is_built_for_core_ml_and_its_errors_are_told_apart(
    recipe: Recipe,
) -> None:
    gates = {(gate.variant, gate.component, gate.metric): gate for gate in recipe.gates}
    assert recipe.targets.coreml is not None
    assert recipe.targets.coreml.language is not None
    # Random weights amplify rounding: the ONNX decoder has the same limit there.
    deep = 1e-5 if recipe.name == "tiny" else 1e-4
    for part, limit in (("vision", deep), ("projector", 1e-5), ("decoder", deep)):
        assert (gates["float32", part, "relative_l2"].max or 1) <= limit
        assert ("float16", f"{part}_precision", "relative_l2") in gates
        assert ("float16", part, "relative_l2") in gates
        assert ("float16", part, "fp16_peak") in gates


def test_without_the_language_part_only_the_tower_is_planned_and_may_be_judged() -> None:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    target = recipe.targets.coreml
    assert target is not None
    tower = replace(target, language=None, compressed=(), ship=("float16",))
    targets = replace(recipe.targets, coreml=tower)
    assert components_of(targets, "coreml", "float16") == ("vision", "vision_precision")
    assert components_of(targets, "coreml", "float32") == ("vision",)
    plan = make_plan(replace(recipe, targets=targets), weights=Path("weights"))
    built = [stage for stage in plan.stages if stage.name.startswith("coreml.")]
    assert {stage.name for stage in built} == {"coreml.vision.float16", "coreml.vision.float32"}
    (parity_of_float16,) = (s for s in plan.stages if s.name == "parity.coreml.float16")
    assert "decoder" not in parity_of_float16.inputs


def test_every_stage_comes_after_those_that_it_reads_from(recipe: Recipe) -> None:
    plan = make_plan(recipe, weights=None if recipe.checkpoint.synthetic else Path("weights"))
    there = {source.name for source in plan.sources}
    for stage in plan.stages:
        assert there >= set(stage.inputs.values())
        there.add(stage.name)


def test_every_key_of_a_recipe_is_explained_in_the_tiny_one() -> None:
    text = (RECIPES / "tiny.yaml").read_text()
    recipe = load_recipe(RECIPES / "tiny.yaml")
    assert recipe.targets.coreml is not None
    assert recipe.quantization is not None
    for value in (
        *(recipe, recipe.checkpoint, recipe.image, recipe.goldens, recipe.targets),
        *(recipe.targets.onnx, recipe.targets.mlx, recipe.targets.coreml.language),
        *(recipe.targets.coreml, recipe.quantization, recipe.quantization.calibration),
    ):
        for name in vars(value):
            assert name in text, f"{name} of {type(value).__name__}"


def test_every_stage_of_a_plan_is_a_function_that_takes_its_config(recipe: Recipe) -> None:
    plan = make_plan(recipe, weights=None if recipe.checkpoint.synthetic else Path("weights"))
    for stage in plan.stages:
        module, _, name = stage.function.partition(":")
        function = getattr(importlib.import_module(module), name)
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


def test_the_real_tower_is_what_consumers_with_a_fixed_tower_need() -> None:
    recipe = load_recipe(RECIPES / "real-tower.yaml")
    assert recipe.image.size == 1024
    assert recipe.goldens.ship
    assert recipe.targets.mlx is not None
    assert {"fp16", "int8", "int4"} <= set(recipe.targets.mlx.variants)
    assert recipe.targets.apple_app is not None
    plan = make_plan(recipe, weights=None)
    assert plan.stages[-1].name == f"apple_app.{recipe.targets.apple_app.variant}"
