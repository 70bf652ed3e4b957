"""`benchmarks.scale --in-parts` on a small recipe: real builds, one store, figures of each part."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def _measure(folder: Path, *parts: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.scale", str(folder / "small.yaml"), "--in-parts"]
    command += [argument for part in parts for argument in ("--part", part)]
    command += ["--work", str(folder / "work"), "--report", str(folder / "scale")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "scale.json").read_text())["recipes"]
    return found


def test_each_part_is_built_and_recorded_by_itself(tmp_path: Path, random_checkpoint: Path) -> None:
    shutil.copytree(random_checkpoint, tmp_path / "checkpoint")
    (tmp_path / "small.yaml").write_text(RECIPE.replace("LIMIT", "1.0e-30"))
    both = _measure(tmp_path)
    assert both.returncode == 1, both.stderr  # a gate of the second part
    onnx, mlx = (_recorded(tmp_path)[f"small-{part}"] for part in ("onnx", "mlx"))
    for figures, own in ((onnx, "onnx.decoder_model_merged"), (mlx, "parity.mlx.fp16")):
        assert {"golden", own} <= {each["stage"] for each in figures["stages"]}
        assert all(each["estimate"] is not None for each in figures["stages"])
        assert figures["part_of"] == "small"
        log = (tmp_path / figures["log"]).read_text()
        assert own in log
        assert str(tmp_path) not in log
    assert "torch.weights" in {each["stage"] for each in mlx["stages"]}
    assert (onnx["gates"]["failed"], mlx["gates"]["failed"]) == (0, 1)
    assert onnx["bundle_bytes"] > 10**6
    assert mlx["bundle_bytes"] == 0
    assert both.stderr.count("golden ") == 2  # built once, up to date in the second part
    assert both.stderr.count("golden                      built in") == 1
    assert "dropped what small-mlx can do without" in both.stdout
    assert not (tmp_path / "work" / "small").exists()

    (tmp_path / "small.yaml").write_text(RECIPE.replace("LIMIT", "1.0e-3"))
    one = _measure(tmp_path, "mlx")
    assert one.returncode == 0, one.stderr
    assert "onnx" not in one.stderr
    found = _recorded(tmp_path)
    assert found["small-onnx"] == onnx
    assert found["small-mlx"]["gates"]["failed"] == 0
