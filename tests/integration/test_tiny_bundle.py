"""The main job, end to end: a recipe becomes a verified bundle that answers about images.

One module, one worker: the bundle is built once.
"""

import json
import shutil
from pathlib import Path

import pytest
from tiny_build import REPOSITORY, Build, build, run_cli

from reference.scenes.scene import held_out

pytestmark = pytest.mark.xdist_group("tiny-bundle")

NUM_ASKED = 8

# A form of everything that is written, and little that is measured.
SOME_OF_TINY = f"""
schema: 1
name: some
extend: {REPOSITORY / "recipes/tiny.yaml"}
goldens:
  scenes: 1
  photographs: 1
  prompts: [Describe the image.]
  max_new_tokens: 4
  task_questions: 4
  variant_questions: 1
  fill_context: false
targets:
  onnx: {{variants: [fp32, int4, mixed]}}
  coreml: {{precisions: [float16], compressed: [lut4], ship: [float16, lut4]}}
  mlx: {{variants: [int4]}}
gates: []
"""


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_gate_that_ran_passed_and_core_ml_is_never_said_to_have_run(tiny: Build) -> None:
    statuses: dict[str, set[str]] = {}
    for variant in tiny.manifest()["variants"]:
        for gate in variant["gates"]:
            statuses.setdefault(variant["target"], set()).add(gate["status"])
            assert gate["why"]
            assert bool(gate["executor"]) == (gate["status"] != "not run")
            assert gate["reason"] or gate["status"] != "not run"
            assert not gate["executed_by_core_ml"]
    assert statuses["onnx"] == {"passed"}
    assert statuses["coreml"] == {"passed"}
    assert statuses["mlx"] == {"passed"}
    assert statuses["reference"] == {"passed"}
    assert "coreml.float32, coreml.float16, coreml.int8" in tiny.stderr
    assert "coreml.mixed: ML Program parity, not executed by Core ML" in tiny.stderr


def test_the_bundle_verifies(tiny: Build) -> None:
    result = run_cli("verify", tiny.bundle, cwd=tiny.bundle.parent)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("runtime", "variant"),
    [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int4"),
        ("onnxruntime", "mixed"),
        ("torch", "fp32"),
        ("ml_program", "float16"),
        ("ml_program", "lut4"),
        ("mlx", "int4"),
    ],
)
def test_generate_answers_questions_about_unseen_scenes(
    tiny: Build, tmp_path: Path, runtime: str, variant: str
) -> None:
    right = 0
    num_asked = NUM_ASKED if runtime in ("onnxruntime", "torch") else NUM_ASKED // 2
    for index in range(num_asked):
        scene = held_out(10_000 + index)
        scene.image.save(tmp_path / "scene.png")
        question = scene.questions[index % 5]
        result = run_cli(
            *("generate", tiny.bundle, "--image", tmp_path / "scene.png"),
            *("--prompt", question.text, "--runtime", runtime, "--variant", variant, "--json"),
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        assert answer["tokens_per_second"] >= 0
        right += answer["answer"] == question.answer
    assert right >= num_asked - 1  # the model is promised to be right in 95 of 100


def test_a_second_build_runs_nothing_and_touches_nothing(tiny: Build) -> None:
    before = tree(tiny.bundle)
    again = build(tiny.bundle.parent)
    assert "built in" not in again.stderr
    assert "up to date" in again.stderr
    assert tree(tiny.bundle) == before


def test_plan_shows_every_stage_as_a_hit_and_writes_nothing(tiny: Build) -> None:
    before = tree(tiny.bundle.parent)
    recipe = REPOSITORY / "recipes/tiny.yaml"
    result = run_cli("plan", recipe, "--store", tiny.store, "--json", cwd=tiny.bundle.parent)
    stages = json.loads(result.stdout)["stages"]
    assert len(stages) >= 9
    assert {stage["state"] for stage in stages} == {"hit"}
    assert tree(tiny.bundle.parent) == before


def test_a_build_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = tmp_path / "some.yaml"
    recipe.write_text(SOME_OF_TINY)
    folders = [tmp_path / "here", tmp_path / "far" / "away"]
    for folder in folders:
        folder.mkdir(parents=True)
    ours, theirs = (build(folder, recipe).manifest() for folder in folders)
    assert ours["files"] == theirs["files"]
    assert ours == theirs


def test_no_file_of_the_bundle_names_the_building_machine(tiny: Build) -> None:
    needles = [
        str(REPOSITORY).encode(),
        str(tiny.store).encode(),
        str(Path.home()).encode() + b"/.",
    ]
    for path in tiny.bundle.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(needle in data for needle in needles), path.name


@pytest.mark.parametrize("change", ["flip", "truncate", "remove", "add"])
def test_verify_catches_one_changed_missing_or_added_byte(
    tiny: Build, tmp_path: Path, change: str
) -> None:
    copy = shutil.copytree(tiny.bundle, tmp_path / "copy")
    victim = copy / "onnx" / "vision_encoder.onnx"
    data = bytearray(victim.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 1
    victim.write_bytes(data[:-1] if change == "truncate" else data)
    if change == "remove":
        victim.unlink()
    if change == "add":
        (copy / "onnx" / "extra").write_bytes(b"x")
    result = run_cli("verify", copy, cwd=tmp_path)
    assert result.returncode == 1
    assert ("extra" if change == "add" else "vision_encoder.onnx") in result.stdout + result.stderr


def test_a_gate_that_cannot_be_met_publishes_nothing_and_says_by_how_much(
    tiny: Build, tmp_path: Path
) -> None:
    recipe = tmp_path / "strict.yaml"
    recipe.write_text(
        f"""
schema: 1
name: strict
extend: {REPOSITORY / "recipes/tiny.yaml"}
gates:
  - target: onnx
    variant: fp32
    component: vision_encoder
    metric: relative_l2
    max: 1.0e-12
    why: no float32 computation is this exact, so the build must fail
"""
    )
    out = tmp_path / "dist"
    result = run_cli("build", recipe, "--store", tiny.store, "--out", out, "--quiet", cwd=tmp_path)
    assert result.returncode == 1
    assert not out.exists()
    assert "vision_encoder" in result.stderr
    assert "relative_l2" in result.stderr
    assert "Traceback" not in result.stderr


def test_core_ml_package_keeps_apples_contract(tiny: Build) -> None:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    (path,) = (tiny.bundle / "coreml/fastvithd.mlpackage").rglob("*.mlmodel")
    spec.ParseFromString(path.read_bytes())
    # One function a size; the one that an app gets without asking is the recipe's.
    described = {function.name: function for function in spec.description.functions}
    default = described[spec.description.defaultFunctionName]
    assert set(described) == {spec.description.defaultFunctionName, "size_320"}
    (image,), (features,) = default.input, default.output
    assert (image.name, list(image.type.multiArrayType.shape)) == ("images", [1, 3, 256, 256])
    assert features.name == "image_features"
    assert list(features.type.multiArrayType.shape)[:2] == [1, 16]
    float32 = 65568  # ArrayFeatureType.ArrayDataType.FLOAT32
    assert image.type.multiArrayType.dataType == float32
    assert features.type.multiArrayType.dataType == float32
