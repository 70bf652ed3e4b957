"""`validate`: a bundle measured again from its own goldens, as it is done on a Mac."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_build import Build, run_cli

from validation.parity_file import read_parity

pytestmark = pytest.mark.xdist_group("tiny-bundle")


def test_the_bundle_measured_again_gives_the_verdicts_of_the_build(
    tiny: Build, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.bundle.rglob("*")}
    report = tmp_path / "again.json"
    result = run_cli("validate", tiny.bundle, "--report", report, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in tiny.bundle.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]
    told = result.stdout
    if sys.platform != "darwin":
        names = "coreml.float16, coreml.int4, coreml.lut4"
        assert f"{names}: ML Program parity, not executed by Core ML" in told
    rows = {(r.target, r.variant, r.component, r.metric): r for r in read_parity(report).gates}
    built = read_parity(tiny.bundle / "reports/parity.json").gates
    shipped = {(v["target"], v["variant"]) for v in tiny.manifest()["variants"] if v["files"]}
    for row in built:
        again = rows.get((row.target, row.variant, row.component, row.metric))
        of_float32 = row.variant == "float16" and row.component.endswith("_precision")
        if (row.target, row.variant) not in shipped or of_float32:
            assert again is None or again.status == "not run"  # float32 is not shipped
            continue
        assert again is not None
        assert (again.status, again.threshold, again.why) == (
            row.status,
            row.threshold,
            row.why,
        )
        if row.executor == again.executor:
            assert again.value == pytest.approx(row.value, rel=0.2, abs=1e-6)
    reasons = {row.reason for row in rows.values() if row.status == "not run"}
    assert reasons == {"not in the bundle", "the float32 packages are not in the bundle"}


def test_a_package_that_computes_something_else_is_caught(tiny: Build, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.bundle, tmp_path / "copy")
    goldens = json.loads((copy / "goldens/goldens.json").read_text())
    goldens["questions"] = []  # they take the most time
    (copy / "goldens/goldens.json").write_text(json.dumps(goldens))
    (weights,) = (copy / "coreml/projector.mlpackage").rglob("weight.bin")
    data = bytearray(weights.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)
    weights.write_bytes(data)
    result = run_cli("validate", copy, "--json", cwd=tmp_path)
    assert result.returncode == 1
    assert "gates failed" in result.stderr
    rows = json.loads(result.stdout)["gates"]
    failed = {(row["target"], row["component"]) for row in rows if row["status"] == "failed"}
    assert ("coreml", "projector") in failed
    assert not {component for target, component in failed if target == "onnx"}
    assert ("coreml", "decoder") not in failed


def test_a_bundle_without_goldens_is_told_how_to_get_them(tiny: Build, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.bundle, tmp_path / "copy", ignore=lambda _, __: {"goldens"})
    result = run_cli("validate", copy, cwd=tmp_path)
    assert result.returncode == 2
    assert "built without goldens" in result.stderr
    assert "ship: true" in result.stderr


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    result = run_cli("validate", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert "this is not a bundle" in result.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="says what happens where Core ML is not")
def test_off_a_mac_the_runtime_coreml_is_refused_with_the_one_that_works(
    tiny: Build, tmp_path: Path
) -> None:
    arguments = ("generate", tiny.bundle, "--prompt", "hello", "--runtime", "coreml")
    result = run_cli(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "Core ML needs macOS" in result.stderr
    assert "ml_program" in result.stderr
    assert not result.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there")
def test_a_job_that_must_run_core_ml_cannot_pass_without_it(tiny: Build, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.bundle, tmp_path / "copy")
    goldens = json.loads((copy / "goldens/goldens.json").read_text())
    goldens["questions"] = []
    (copy / "goldens/goldens.json").write_text(json.dumps(goldens))
    result = run_cli("validate", copy, "--require-core-ml", cwd=tmp_path)
    assert result.returncode == 1
    assert "Core ML executed nothing" in result.stderr
