"""A recipe's device leaves those variants that it is sent, and says why."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import pytest
import yaml
from click.testing import CliRunner

from fastvlm_compile.bundle_plan import recipe_text
from fastvlm_compile.cli import cli
from fastvlm_compile.devices import DEVICES, DeviceName
from fastvlm_compile.errors import RecipeError
from fastvlm_compile.plan import make_plan
from fastvlm_compile.recipe import COMPONENTS, Recipe, components_of
from fastvlm_compile.recipe_device import chosen_for_device
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.recipe_narrow import narrow

RECIPES = Path(__file__).parents[3] / "recipes"


def _load(folder: Path, base: str, text: str) -> Recipe:
    file = folder / "recipe.yaml"
    file.write_text(f"schema: 1\nname: mine\nextend: {RECIPES / base}\n{text}")
    return load_recipe(file)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("base", ["tiny.yaml", "0.5b.yaml", "1.5b.yaml", "7b.yaml"])
def test_a_device_is_sent_a_part_of_every_recipe_with_its_gates(
    tmp_path: Path, device: str, base: str
) -> None:
    whole = load_recipe(RECIPES / base)
    recipe = _load(tmp_path, base, f"device: {device}\n")
    sent = {(each.target, each.variant) for each in DEVICES[cast(DeviceName, device)].variants}
    built = {(t, v) for t, names in recipe.targets.variants().items() for v in names}
    assert built == sent & {(t, v) for t, names in whole.targets.variants().items() for v in names}
    assert {(each.target, each.variant) for each in chosen_for_device(recipe)} == built
    assert all(each.why for each in chosen_for_device(recipe))
    measured = recipe.targets.measured()
    for gate in recipe.gates:
        assert gate.variant in measured[gate.target]
        assert gate.component in components_of(recipe.targets, gate.target, gate.variant)
    assert {gate.target for gate in recipe.gates} == measured.keys()
    make_plan(recipe, weights=Path("weights") if recipe.checkpoint.path else None)


def test_apples_app_goes_to_apples_devices_alone(tmp_path: Path) -> None:
    app = "targets:\n  apple_app: {variant: int4, vision: float16}\n"
    for device, expected in (("iphone", True), ("mac", True)):
        recipe = _load(tmp_path, "0.5b.yaml", f"device: {device}\n{app}")
        assert (recipe.targets.apple_app is not None) == expected
    assert _load(tmp_path, "0.5b.yaml", f"device: browser\n{app}").targets.apple_app is None


def test_a_device_that_is_sent_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, "real-tower.yaml", "device: browser\n")
    assert caught.value.message == (
        "recipe mine: its targets build nothing that the device browser is sent"
    )
    assert caught.value.hint == "it is sent onnx fp16, onnx int8, onnx int4"


def test_an_unknown_device_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, "0.5b.yaml", "device: iphon\n")
    assert "expected one of iphone, mac, browser, cpu-server" in caught.value.message
    assert caught.value.hint == "did you mean `iphone`?"


def test_the_manifest_names_the_device_and_what_it_chose(tmp_path: Path) -> None:
    text = yaml.safe_load(recipe_text(_load(tmp_path, "0.5b.yaml", "device: cpu-server\n")))
    assert text["device"] == "cpu-server"
    assert text["targets"].keys() == {"onnx"}
    assert text["targets"]["onnx"]["variants"] == ["int8", "int4", "int4-fast", "mixed"]


def test_the_plan_says_what_the_device_is_sent_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _load(tmp_path, "7b.yaml", "device: iphone\n")
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(cli, ["plan", "recipe.yaml"])
    assert outcome.exit_code == 0, outcome.output
    lines = outcome.stderr.splitlines()
    assert lines[lines.index("device iphone") + 1 :] == [
        "    coreml.int4: 4 bits with a scale for a block of weights, for the GPU",
        "    mlx.int4: what Apple's app loads; an app may use about half of a phone's memory",
        "    nothing else: 8 and 16 bits do not leave a phone's memory to other apps; ONNX is "
        "slower there",
    ]
    found = json.loads(CliRunner().invoke(cli, ["plan", "recipe.yaml", "--json"]).stdout)
    assert found["device"]["name"] == "iphone"
    assert found["device"]["chosen"].keys() == {"coreml.int4", "mlx.int4"}


def test_gates_are_not_inherited_for_variants_that_targets_leave_out(tmp_path: Path) -> None:
    recipe = _load(tmp_path, "0.5b.yaml", "targets: {onnx: {variants: [int4]}}\n")
    assert {gate.variant for gate in recipe.gates if gate.target == "onnx"} == {"int4"}


def test_a_gate_of_ones_own_for_a_variant_that_is_left_out_is_a_mistake(tmp_path: Path) -> None:
    gate = "{target: onnx, variant: fp32, component: decoder, metric: kl_max, max: 1, why: x}"
    text = f"targets: {{onnx: {{variants: [int4]}}}}\ngates: [{gate}]\n"
    with pytest.raises(RecipeError, match="do not build `fp32` of onnx"):
        _load(tmp_path, "0.5b.yaml", text)


def test_without_float32_packages_nothing_is_compared_with_them() -> None:
    recipe = load_recipe(RECIPES / "0.5b.yaml")
    left = narrow(recipe, frozenset({("coreml", "float16"), ("coreml", "int4")}))
    components = {g.component for g in left.gates if (g.target, g.variant) == ("coreml", "float16")}
    assert components
    assert not any(name.endswith("_precision") for name in components)
    of_int4 = {g.component for g in left.gates if (g.target, g.variant) == ("coreml", "int4")}
    assert "decoder_precision" in of_int4, "against PyTorch with the same weights"


def test_every_device_is_sent_variants_that_recipes_can_build() -> None:
    tiny = load_recipe(RECIPES / "tiny.yaml").targets.variants()
    for device in DEVICES.values():
        for each in device.variants:
            assert each.target in COMPONENTS
            assert each.variant in tiny[each.target]


def test_a_narrowed_recipe_can_be_narrowed_again_without_a_change() -> None:
    recipe = load_recipe(RECIPES / "tiny.yaml")
    chosen = frozenset({("onnx", "fp32"), ("mlx", "int4")})
    once = narrow(recipe, chosen)
    assert narrow(once, chosen) == once
    assert once.targets.onnx is not None
    assert once.targets.onnx.genai == "fp32"
    assert dataclasses.replace(once, targets=recipe.targets, gates=recipe.gates) == recipe
