"""A Core ML package: its contract is checked anywhere, its numbers only where something runs it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fastvlm_compile.progress import silent
from fastvlm_compile.stages.parity import CoreMLParityConfig, coreml
from validation.coreml_parity import CoreMLParity, measure_coreml
from validation.gate_table import executor_notes
from validation.gates import Gate, judge
from validation.parity_file import read_parity
from validation.runtimes.core_ml_executor import NotRunnable, Opened, Packages
from validation.runtimes.core_ml_vision import PackageUnreadableError, describe_package
from validation.tensor_parity import Tolerance

TOLERANCE = Tolerance(rtol=1e-2, atol=1e-3)
NOWHERE = NotRunnable(reason="nothing runs packages here")
GATES = [
    Gate(target="coreml", variant="float16", component="vision", metric="relative_l2", max=1e-2,
         why="float16 storage"),
]  # fmt: skip


def write_package(
    path: Path,
    *,
    input_name: str = "images",
    input_shape: tuple[int, ...] = (1, 3, 128, 128),
    output_shape: tuple[int, ...] = (1, 4, 256),
    output_type: str = "FLOAT32",
    functions: tuple[str, ...] = ("main",),
) -> Path:
    """A package that holds a specification and nothing to run."""
    from coremltools.proto import FeatureTypes_pb2, Model_pb2

    spec = Model_pb2.Model(specificationVersion=8)
    for function in functions:
        spec.mlProgram.functions[function].opset = "CoreML7"
    types = FeatureTypes_pb2.ArrayFeatureType
    for feature, name, shape, kind in (
        (spec.description.input.add(), input_name, input_shape, "FLOAT32"),
        (spec.description.output.add(), "image_features", output_shape, output_type),
    ):
        feature.name = name
        feature.type.multiArrayType.shape.extend(shape)
        feature.type.multiArrayType.dataType = types.ArrayDataType.Value(kind)
    folder = path / "Data" / "com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(spec.SerializeToString())
    manifest = {
        "rootModelIdentifier": "root",
        "itemInfoEntries": {"root": {"path": "com.apple.CoreML/model.mlmodel"}},
    }
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


class Fake:
    """Stands for Core ML; what it returns is the test's business."""

    executor = "fake 1.0"
    executed_by_core_ml = True

    def __init__(self, run) -> None:
        self.vision_features = run


@pytest.fixture
def measure(goldens, tokenizer):
    """`measure(package, fake)`; without a fake nothing executes it."""

    def run(package, fake=None):
        opened = NOWHERE if fake is None else Opened(vision=fake, whole=None)
        return measure_coreml(
            CoreMLParity(tolerance=TOLERANCE, executor=lambda _: opened),
            goldens=goldens,
            packages=Packages(vision=package, whole=None, precision="float16"),
            tokenizer=tokenizer,
            progress=silent,
        ).measurements

    return run


def test_where_nothing_executes_it_the_description_is_read_and_the_numbers_are_not_run(
    measure, tmp_path
):
    measurements = measure(write_package(tmp_path / "p.mlpackage"))
    rows = judge(measurements, GATES)
    assert [(row.metric, row.status, row.executor) for row in rows] == [
        ("structure", "passed", "package description read, nothing executed"),
        ("relative_l2", "not run", ""),
    ]
    assert rows[1].reason == "nothing runs packages here"
    assert not any(each.executed_by_core_ml for each in measurements)
    assert not executor_notes(rows)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"input_name": "image"}, "input images float32[1, 3, 128, 128]: expected"),
        ({"input_shape": (1, 3, 64, 64)}, "found images float32[1, 3, 64, 64]"),
        ({"output_shape": (1, 256, 4)}, "found image_features float32[1, 256, 4]"),
        ({"output_shape": (4, 256)}, "found image_features float32[4, 256]"),
        ({"output_type": "FLOAT16"}, "found image_features float16[1, 4, 256]"),
        ({"functions": ("main", "other")}, "expected one function, main, found main, other"),
        ({"functions": ()}, "expected an mlProgram"),
    ],
)
def test_a_package_that_the_app_would_trap_on_fails(measure, tmp_path, wrong, words):
    package = write_package(tmp_path / "p.mlpackage", **wrong)
    rows = judge(measure(package), GATES)
    assert rows[0].status == "failed"
    assert words in rows[0].reason


def golden_features(goldens):
    """An executor's function that looks up the reference's answer by the pixels."""
    known = {
        goldens.pixel_values(name).tobytes(): goldens.vision_features(name)
        for name in goldens.index.image_ids
    }
    return lambda pixels: known[pixels[0].tobytes()][None].copy()


def test_where_core_ml_runs_it_is_named_and_compared(goldens, measure, tmp_path):
    right = golden_features(goldens)
    package = write_package(tmp_path / "p.mlpackage")
    exact = {m.metric: m for m in measure(package, Fake(right)) if m.component == "vision"}
    assert exact["relative_l2"].value == 0.0
    assert exact["psnr_db"].value == math.inf
    assert exact["relative_l2"].executor == "fake 1.0"
    assert exact["relative_l2"].executed_by_core_ml
    assert exact["fp16_peak"].not_run_reason.startswith("Core ML does not show the values inside")
    for wrong in (
        lambda pixels: right(pixels) * np.float32(1.02),
        lambda pixels: -right(pixels),
        lambda pixels: right(pixels)[:, ::-1].copy(),
        lambda pixels: np.full_like(right(pixels), np.nan),
        lambda pixels: right(pixels).astype(np.float16),
    ):
        rows = judge(measure(package, Fake(wrong)), GATES)
        assert "failed" in {row.status for row in rows}


def test_an_unusable_package_is_told(tmp_path):
    with pytest.raises(PackageUnreadableError, match="no such package"):
        describe_package(tmp_path / "absent.mlpackage")
    package = write_package(tmp_path / "p.mlpackage")
    spec = package / "Data/com.apple.CoreML/model.mlmodel"
    spec.write_bytes(b"\xff\xff\xff not a specification")
    with pytest.raises(PackageUnreadableError, match="specification cannot be read"):
        describe_package(package)
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(PackageUnreadableError, match=r"Manifest\.json is damaged"):
        describe_package(package)


def test_a_package_that_has_nothing_to_run_fails_with_the_executors_words(
    golden_directory, random_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.platform", "linux")
    write_package(tmp_path / "package" / "fastvithd.mlpackage")
    (tmp_path / "processor").symlink_to(random_checkpoint)
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"golden": golden_directory, "checkpoint": tmp_path, "vision": tmp_path / "package"}
    coreml(CoreMLParityConfig(variant="float32", precision="float32"), inputs, out, silent)
    (structure,) = read_parity(out / "parity.json").measurements
    assert structure.target == "coreml"
    assert structure.value == 0.0
    assert structure.executor.startswith("ML Program executor (torch ")
    assert not structure.executed_by_core_ml
