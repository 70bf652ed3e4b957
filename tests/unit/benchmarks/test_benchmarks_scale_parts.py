"""A recipe in parts, as `make bench-scale SCALE_FLAGS=--in-parts` builds it: nothing gets lost."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from toy_build import run_toys, toy_stage
from toy_stages import TextConfig

from fastvlm_compile.plan import make_plan
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from reference.errors import UserError

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    return import_module("benchmarks.scale_parts")


def _stages(recipe: Recipe) -> set[str]:
    return {stage.name for stage in make_plan(recipe, weights=None).stages}


@pytest.mark.parametrize("name", ["0.5b", "1.5b", "7b"])
def test_the_parts_have_every_stage_and_every_gate_of_the_whole(
    parts: ModuleType, tmp_path: Path, name: str
) -> None:
    whole = load_recipe(RECIPES / f"{name}.yaml")
    files = parts.write_parts(RECIPES / f"{name}.yaml", tmp_path)
    found = {part: load_recipe(file) for part, file in files.items()}
    assert list(found) == ["onnx", "coreml", "mlx"]
    assert {each.name for each in found.values()} == {f"{name}-{part}" for part in found}
    assert set.union(*(_stages(each) for each in found.values())) == _stages(whole)
    assert {gate for each in found.values() for gate in each.gates} == set(whole.gates)
    assert all(each.checkpoint == whole.checkpoint for each in found.values())


def test_a_target_that_no_part_can_have_is_refused(parts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Apple's app needs both") as caught:
        parts.write_parts(RECIPES / "real-tower.yaml", tmp_path / "parts")
    assert "larger disk" in caught.value.hint
    assert not (tmp_path / "parts").exists()


def test_only_stages_of_parts_to_come_stay(parts: ModuleType, tmp_path: Path) -> None:
    stages = (
        toy_stage("write", TextConfig(text="shared"), name="golden"),
        toy_stage("write", TextConfig(text="alone"), name="onnx.fp32"),
    )
    root = tmp_path / "store"
    run_toys(Plan(recipe="toy", sources=(), stages=stages), root)
    freed_bytes = parts.keep_stages(Store(root=root), {"golden", "mlx.fp16"})
    left = [path.read_text() for path in (root / "entries").glob("*/output/text")]
    assert left == ["shared"]
    assert freed_bytes == len("alone")
