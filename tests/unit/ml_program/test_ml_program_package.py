"""Packages are read by our own code, and damage is told by file and offset."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_program_building import ct, save
from ml_program_editing import SPEC, WEIGHTS, constant, edited, operations, patched

from validation.runtimes.ml_program.blob import WeightFile
from validation.runtimes.ml_program.errors import PackageError, UnsupportedOp
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.types import DType, TensorType

X = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(8, 4, 1)
    )
    return save(
        torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8)),
        tmp_path_factory.mktemp("package") / "model.mlpackage",
        inputs=[ct.TensorType("x", (1, 3, 8, 8))],
        outputs=[ct.TensorType("y")],
    )


def first_blob(package: Path) -> int:
    """Offset of the first record after the header."""
    data = (package / WEIGHTS).read_bytes()
    assert struct.unpack_from("<I", data, 64)[0] == 0xDEADBEEF
    return 64


def test_spec_and_weights_are_found_through_the_manifest(package: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.mlpackage"
    shutil.copytree(package, moved)
    (moved / "Data" / "com.apple.CoreML").rename(moved / "Data" / "elsewhere")
    manifest = json.loads((moved / "Manifest.json").read_text())
    for item in manifest["itemInfoEntries"].values():
        item["path"] = item["path"].replace("com.apple.CoreML", "elsewhere")
    (moved / "Manifest.json").write_text(json.dumps(manifest))
    assert open_package(moved).spec == moved / "Data" / "elsewhere" / "model.mlmodel"
    assert np.array_equal(load(moved).run(X)["y"], load(package).run(X)["y"])


def test_what_is_no_package_is_said_so(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is not an"):
        load(tmp_path)
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    (broken / "Manifest.json").write_text("{}")
    with pytest.raises(PackageError, match="names no root model"):
        load(broken)
    (broken / "Manifest.json").write_text("{")
    with pytest.raises(PackageError, match="is not JSON"):
        load(broken)


def test_a_missing_model_or_weight_file_is_named(package: Path, tmp_path: Path) -> None:
    for part in (SPEC, WEIGHTS):
        broken = tmp_path / part.name
        shutil.copytree(package, broken)
        (broken / part).unlink()
        with pytest.raises(PackageError, match=part.name):
            load(broken)


def test_a_flipped_byte_of_a_sentinel_is_told_by_file_and_offset(
    package: Path, tmp_path: Path
) -> None:
    offset = first_blob(package)
    broken = patched(package, tmp_path / "flipped", offset + 1, b"\x00")
    with pytest.raises(PackageError, match=rf"weight.bin at offset {offset}: sentinel 0xdead00ef"):
        load(broken)


@pytest.mark.parametrize(
    ("place", "data", "message"),
    [
        (4, struct.pack("<I", 99), "data type 99 is unknown"),
        (4, struct.pack("<I", 1), "holds fp16 where the program declares fp32"),
        (8, struct.pack("<Q", 8), "holds 8 bytes where the program declares"),
        (16, struct.pack("<Q", 1 << 40), "lies outside the file"),
        (16, struct.pack("<Q", 130), "lies outside the file"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_before_anything_runs(
    place: int, data: bytes, message: str, package: Path, tmp_path: Path
) -> None:
    offset = first_blob(package)
    broken = patched(package, tmp_path / "broken", offset + place, data)
    with pytest.raises(PackageError, match=f"weight.bin at offset {offset}: .*{message}"):
        load(broken)


def test_another_version_or_a_cut_off_file_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="blob storage version 1, not 2"):
        load(patched(package, tmp_path / "version", 4, struct.pack("<I", 1)))
    short = tmp_path / "short"
    shutil.copytree(package, short)
    (short / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:200])
    with pytest.raises(PackageError, match=r"lies outside the file|no blob can start"):
        load(short)
    (short / WEIGHTS).write_bytes(b"")
    with pytest.raises(PackageError, match=r"weight\.bin"):
        load(short)


def test_weights_are_read_as_torch_holds_them(package: Path) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Conv2d(3, 8, 3, padding=1).weight.detach().numpy()
    file = WeightFile(package / WEIGHTS)
    declared = TensorType(dtype=DType.FP32, shape=(8, 3, 3, 3))
    assert np.array_equal(file.array(first_blob(package), declared), weight)


def test_a_weight_file_outside_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    def escape(model: Any) -> None:
        for operation in operations(model, "const"):
            value = operation.attributes["val"]
            if value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = "@model_path/../../../secret.bin"

    with pytest.raises(PackageError, match="not inside the package"):
        load(edited(package, tmp_path / "escape", escape))


@pytest.mark.parametrize("cut", [1, 10, 500])
def test_a_cut_off_spec_is_refused_or_named(cut: int, package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cut"
    shutil.copytree(package, broken)
    (broken / SPEC).write_bytes((package / SPEC).read_bytes()[:-cut])
    with pytest.raises(PackageError, match=r"model\.mlmodel"):
        load(broken)


def test_random_bytes_are_never_more_than_a_named_error(package: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = (package / SPEC).read_bytes()
    broken = tmp_path / "noise"
    shutil.copytree(package, broken)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = int(rng.integers(256))
        (broken / SPEC).write_bytes(bytes(data))
        try:
            load(broken)
        except (PackageError, UnsupportedOp):
            refused += 1
    assert refused > 20


def test_an_older_kind_of_model_is_no_ml_program(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is not an ML Program"):
        load(edited(package, tmp_path / "old", lambda model: model.ClearField("mlProgram")))


def test_a_description_that_contradicts_the_program_is_refused(
    package: Path, tmp_path: Path
) -> None:
    def rename(model: Any) -> None:
        model.description.input[0].name = "pixels"

    def retype(model: Any) -> None:
        model.description.output[0].type.multiArrayType.dataType = 65552  # FLOAT16

    with pytest.raises(PackageError, match=r"has the inputs \['x'\], its description"):
        load(edited(package, tmp_path / "renamed", rename))
    with pytest.raises(PackageError, match="'y' is fp32 in the program and fp16"):
        load(edited(package, tmp_path / "retyped", retype))


def test_a_wrong_value_in_the_spec_changes_the_result(package: Path, tmp_path: Path) -> None:
    """A negative control for everything that compares results."""

    def other_gelu(model: Any) -> None:
        (gelu,) = operations(model, "gelu")
        mode = constant(model, gelu.inputs["mode"].arguments[0].name)
        mode.immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"

    changed = load(edited(package, tmp_path / "changed", other_gelu)).run(X)["y"]
    assert not np.array_equal(changed, load(package).run(X)["y"])
