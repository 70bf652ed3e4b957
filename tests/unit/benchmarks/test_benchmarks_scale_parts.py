"""A recipe in parts, as `make bench-scale SCALE_FLAGS=--in-parts` builds it: nothing gets lost."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from toy_build import run_toys, toy_stage
from toy_stages import TextConfig

from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.plan import make_plan
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from reference.errors import UserError
from validation.gates import GateRow, Status
from validation.parity_file import ParityReport, write_parity

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    return import_module("benchmarks.scale_parts")


@pytest.fixture
def kinds(parts: ModuleType) -> ModuleType:
    return import_module("benchmarks.scale_figures")


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


def test_parts_are_joined_and_what_they_share_counts_once(
    parts: ModuleType, kinds: ModuleType, tmp_path: Path
) -> None:
    def stage(name: str, time_s: float) -> object:
        took = Estimate(memory_bytes=10**9, disk_bytes=1, time_s=time_s)
        return kinds.StageFigures(stage=name, took=took, estimate=None)

    def row(target: str, status: Status) -> GateRow:
        return GateRow(
            target=target,
            variant="int4",
            component="decoder",
            metric="cosine",
            status=status,
            bound="min",
            threshold=0.9,
        )

    onnx = kinds.RecipeFigures(
        recipe="1.5b-onnx",
        stages=(stage("golden", 10.0), stage("onnx.fp32", 2.0)),
        whole=kinds.Took(wall_s=15.0, peak_bytes=3),
        gates={},
        bundle_bytes=5,
    )
    mlx = replace(
        onnx,
        recipe="1.5b-mlx",
        stages=(stage("golden", 10.0), stage("mlx.fp16", 4.0)),
        whole=kinds.Took(wall_s=4.5, peak_bytes=7),
        bundle_bytes=6,
    )
    shared = row("reference", "passed")
    for file, own in (("a", row("onnx", "failed")), ("b", row("mlx", "passed"))):
        write_parity(tmp_path / file, ParityReport(measurements=(), gates=(shared, own)))
    gates = kinds.count_gates([tmp_path / "a", tmp_path / "b"])
    assert gates == {"passed": 2, "failed": 1, "not run": 0}
    found = parts.joined("1.5b", {"onnx": onnx, "mlx": mlx}, gates=gates)
    assert [each.stage for each in found.stages] == ["golden", "onnx.fp32", "mlx.fp16"]
    assert (found.recipe, found.parts, found.gates) == ("1.5b", ("onnx", "mlx"), gates)
    assert found.whole == kinds.Took(wall_s=19.5, peak_bytes=7)
    assert found.bundle_bytes == 11
    assert (
        parts.joined("1.5b", {"onnx": replace(onnx, whole=None), "mlx": mlx}, gates={}).whole
        is None
    )
