"""The folder for Apple's app keeps every clause, and computes what the reference computes."""

import shutil
from pathlib import Path

import pytest

from validation.consumers import apple_app
from validation.consumers.outcome import Environment

pytestmark = pytest.mark.consumers


def test_the_folder_of_the_real_tower_agrees_and_the_binary_waits_for_a_mac(
    real_tower_bundle: Path, environment: Environment
) -> None:
    folder, binary = apple_app.check(real_tower_bundle, environment)
    assert folder.status == "agreed", folder
    assert "not executed by Core ML" in folder.detail
    assert (binary.variant, binary.status) == ("the app's binary", "not_run")


def test_another_image_size_is_not_supported(tiny_bundle: Path, environment: Environment) -> None:
    (outcome,) = apple_app.check(tiny_bundle, environment)
    assert outcome.status == "not_supported"
    assert "1024 pixels" in outcome.detail


def test_codes_packed_the_other_way_round_disagree(
    real_tower_bundle: Path, environment: Environment, tmp_path: Path
) -> None:
    """The control: names, shapes and dtypes are right, only the order of nibbles is not."""
    from safetensors.numpy import load_file, save_file

    for name in ("goldens", "apple_app"):
        shutil.copytree(real_tower_bundle / name, tmp_path / name)
    path = tmp_path / "apple_app" / "model.safetensors"
    arrays = load_file(path)
    name = "language_model.model.embed_tokens.weight"
    codes = arrays[name].view("u1")
    arrays[name] = ((codes >> 4) | (codes << 4)).view("u4")
    save_file(arrays, path)
    folder, _ = apple_app.check(tmp_path, environment)
    assert folder.status == "disagreed"
    assert "embedding rows" in folder.detail
