"""mlx-vlm loads the MLX folders as they are and says what the reference says."""

import shutil
from pathlib import Path

import pytest

from validation.consumers import mlx_vlm
from validation.consumers.outcome import Environment

pytestmark = pytest.mark.consumers


def test_every_folder_of_the_real_tower_agrees(
    real_tower_bundle: Path, environment: Environment
) -> None:
    outcomes = mlx_vlm.check(real_tower_bundle, environment)
    assert [outcome.variant for outcome in outcomes] == ["mlx.fp16", "mlx.int4", "mlx.int8"]
    assert [outcome.status for outcome in outcomes] == ["agreed"] * 3, outcomes
    assert all(outcome.version for outcome in outcomes)


def test_a_scaled_down_tower_is_not_supported(tiny_bundle: Path, environment: Environment) -> None:
    outcomes = mlx_vlm.check(tiny_bundle, environment)
    assert {outcome.status for outcome in outcomes} == {"not_supported"}
    assert all("3072 channels" in outcome.detail for outcome in outcomes)


def test_weights_of_another_model_disagree(
    real_tower_bundle: Path, environment: Environment, tmp_path: Path
) -> None:
    """The control: a folder that loads and answers, one of whose matrices is eight times itself.

    In float16: the tokens of quantized folders are compared with arithmetic on the same folder,
    whose weights the build has judged already.
    """
    from safetensors.numpy import load_file, save_file

    shutil.copytree(real_tower_bundle / "goldens", tmp_path / "goldens")
    folder = tmp_path / "mlx" / "fp16"
    shutil.copytree(real_tower_bundle / "mlx" / "fp16", folder)
    arrays = load_file(folder / "model.safetensors")
    name = "language_model.model.layers.0.self_attn.o_proj.weight"
    arrays[name] = arrays[name] * 8
    save_file(arrays, folder / "model.safetensors", metadata={"format": "mlx"})
    (outcome,) = mlx_vlm.check(tmp_path, environment)
    assert outcome.status == "disagreed", outcome
