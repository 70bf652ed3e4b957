"""`benchmarks.scale --in-parts` on a small recipe: real builds, one store, one row of figures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_recipe import small_recipe
from tiny_build import REPOSITORY

pytestmark = pytest.mark.xdist_group("scale-in-parts")

RECIPE = small_recipe(
    """\
targets:
  onnx: {variants: [fp32], logits: last, opset: 21}
  mlx: {variants: [fp16]}
  torch: {}
gates:
  - target: onnx
    variant: fp32
    component: vision_encoder
    metric: relative_l2
    max: 1.0e-4
    why: float32 rounding
  - target: mlx
    variant: fp16
    component: vision_encoder
    metric: relative_l2
    max: LIMIT
    why: float32 arithmetic on the same numbers
""",
)


def _measure(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.scale", str(folder / "small.yaml"), "--in-parts"]
    command += ["--work", str(folder / "work"), "--report", str(folder / "scale")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_both_parts_are_built_and_told_as_one(tmp_path: Path, random_checkpoint: Path) -> None:
    shutil.copytree(random_checkpoint, tmp_path / "checkpoint")
    (tmp_path / "small.yaml").write_text(RECIPE.replace("LIMIT", "1.0e-30"))
    first = _measure(tmp_path)
    assert first.returncode == 1, first.stderr  # a gate of the second part
    found = json.loads((tmp_path / "scale.json").read_text())["recipes"]["small"]
    stages = [each["stage"] for each in found["stages"]]
    assert len(stages) == len(set(stages))
    assert {"golden", "onnx.decoder_model_merged", "parity.mlx.fp16", "torch.weights"} <= {*stages}
    assert all(each["estimate"] is not None for each in found["stages"])
    assert found["parts"] == ["onnx", "mlx"]
    assert (found["gates"]["failed"], found["gates"]["not run"]) == (1, 0)
    assert found["gates"]["passed"] > 1
    assert found["bundle_bytes"] > 10**6  # of the first part alone
    assert first.stderr.count("golden ") == 2  # built once, up to date in the second part
    assert first.stderr.count("golden                      built in") == 1
    assert "dropped what small-mlx can do without" in first.stdout
    assert "In parts, onnx then mlx" in (tmp_path / "scale.md").read_text()
    assert "small-onnx" not in (tmp_path / "scale.md").read_text()
    log = (tmp_path / "scale_small.log").read_text()
    assert str(tmp_path) not in log
    assert "onnx.decoder_model_merged" in log
    assert "mlx.fp16" in log
    assert not (tmp_path / "work" / "small").exists()
