"""What a forecast follows from: sizes, shared stages, and stages that are there already."""

import dataclasses
import math
from functools import cache
from pathlib import Path

import pytest

from fastvlm_compile.devices import DEVICES, DeviceName
from fastvlm_compile.errors import EstimateError, RecipeError
from fastvlm_compile.estimate.forecast import Forecast, forecast, of_fewer
from fastvlm_compile.estimate.model import PARTS, synthetic_facts, vision_flop
from fastvlm_compile.estimate.rates import load_rates
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.recipe_checkpoint import SyntheticCheckpoint
from fastvlm_compile.recipe_device import for_device
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.recipe_narrow import narrow

RECIPES = Path(__file__).parents[3] / "recipes"
BUILT = ("tiny", "real-tower", "0.5b", "1.5b", "7b")


@cache
def _recipe(name: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml")


def _forecast(recipe: Recipe) -> Forecast:
    return forecast(recipe, weights=recipe.checkpoint.path, base=None)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("device", [None, *DEVICES])
def test_every_recipe_can_be_forecast_for_every_device(
    name: str, device: DeviceName | None
) -> None:
    recipe = dataclasses.replace(_recipe(name), device=device)
    if name == "real-tower" and device in ("browser", "cpu-server"):
        with pytest.raises(RecipeError, match="build nothing that the device"):
            for_device(recipe)  # of ONNX it has fp32 alone
        return
    found = _forecast(for_device(recipe))
    assert set(found.stages) == {stage.name for stage in found.plan.stages}
    for name_, each in found.stages.items():
        assert each.memory_bytes > 40e6, name_  # Python and numpy
        assert each.disk_bytes > 0, name_
        assert 0 < each.time_s < math.inf, name_


def test_facts_of_a_released_size_are_the_published_ones() -> None:
    facts = synthetic_facts(SyntheticCheckpoint(size="7b", seed=0, layout="apple"))
    assert facts.numbers("tower") == pytest.approx(122.7e6, rel=0.01)
    assert facts.numbers(*PARTS) == pytest.approx(7.76e9, rel=0.01)
    assert vision_flop(facts.shapes, 1024) == pytest.approx(487e9, rel=0.05)


@pytest.mark.parametrize(("smaller", "larger"), [("0.5b", "1.5b"), ("1.5b", "7b")])
def test_a_larger_model_takes_no_less_of_anything(smaller: str, larger: str) -> None:
    """With equal goldens and context; chunks are cut by another size."""
    small, large = (
        dataclasses.replace(_recipe(name), context_length=4096) for name in (smaller, larger)
    )
    below, above = _forecast(small).stages, _forecast(large).stages
    for name in above.keys() & below.keys():
        assert above[name].disk_bytes >= 0.97 * below[name].disk_bytes, name
        if not name.startswith(("coreml.decoder.", "parity.coreml.")):
            assert above[name].memory_bytes >= below[name].memory_bytes, name
            assert above[name].time_s >= below[name].time_s, name


def test_quantized_tensors_take_the_bits_that_their_scheme_says() -> None:
    found = _forecast(_recipe("0.5b"))
    language = found.facts.numbers("embedding", "layers", "head")
    for name, bits in (("int8", 8.25), ("int4", 4.5), ("int4-fast", 4.125), ("lut4", 4.03)):
        disk_bytes = found.stages[f"quantize.language-{name}"].disk_bytes
        assert 8 * disk_bytes / language == pytest.approx(bits, rel=0.02)


def test_eight_bits_multiplied_in_float32_take_longer_than_four() -> None:
    times = {
        name: _forecast(_recipe("0.5b")).stages[f"parity.onnx.{name}"].time_s
        for name in ("int4", "mixed", "int8")
    }
    assert times["int4"] < times["mixed"] < times["int8"] / 2


def test_a_narrower_recipe_has_the_same_estimates_of_fewer_stages() -> None:
    whole = _forecast(_recipe("0.5b"))
    fewer = of_fewer(whole, narrow(whole.recipe, frozenset({("onnx", "int4")})))
    assert {"golden", "onnx.language.int4"} <= fewer.stages.keys() < whole.stages.keys()
    assert all(whole.stages[name] == each for name, each in fewer.stages.items())
    assert fewer.bundle_bytes < whole.bundle_bytes


def test_stages_that_are_there_take_nothing() -> None:
    whole = _forecast(_recipe("tiny"))
    nothing, golden = whole.total(()), whole.total(("golden",))
    assert (nothing.memory_bytes, nothing.disk_bytes, nothing.time_s) == (0, 0, 0)
    assert nothing.bundle_bytes == 0
    assert golden.memory_bytes == whole.stages["golden"].memory_bytes
    assert golden.largest == "golden"


def test_damaged_rates_are_told_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    for text in ("{", '{"machine": "a", "kinds": {"x": {"memory_gb": {"nope": 1}}}}'):
        file.write_text(text)
        with pytest.raises(EstimateError) as caught:
            load_rates(file)
        assert str(file) in caught.value.message
        assert "benchmarks.rates" in caught.value.hint
