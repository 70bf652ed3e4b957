"""Each mistake a user can make, through the command line: one clear message, nothing half-written.

A message names what is wrong and how to mend it; the exit code is 2 for bad input and 1 for a
check that found something; there is never a traceback.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from tiny_build import REPOSITORY, Build, run_cli

pytestmark = pytest.mark.xdist_group("tiny-bundle")

TINY_RECIPE = REPOSITORY / "recipes/tiny.yaml"


def expect(exit_code: int, *named: str, arguments: tuple[object, ...], cwd: Path) -> str:
    """Run the command and hold it to its exit code and to the words its message must name."""
    result = run_cli(*arguments, cwd=cwd)
    message = result.stderr
    assert result.returncode == exit_code, message
    assert "Traceback" not in message
    assert "error:" in message or exit_code == 1
    for word in named:
        assert word in message + result.stdout
    return message


def build_arguments(recipe: Path, folder: Path) -> tuple[object, ...]:
    return ("build", recipe, "--store", folder / "store", "--out", folder / "out", "--quiet")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return shutil.copytree(REPOSITORY / "recipes/tiny-checkpoint", tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("contxt_length: 5", ("bad.yaml:", "contxt_length", "context_length")),
        ("context_length: many", ("bad.yaml:", "context_length", "many")),
        ("image: {size: 100}", ("bad.yaml:", "multiple of 64")),
        ("goldens: [1, 2", ("bad.yaml:",)),
    ],
)
def test_a_recipe_mistake_names_file_line_and_mend(
    tmp_path: Path, text: str, named: tuple[str, ...]
) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(f"schema: 1\nname: bad\nextend: {TINY_RECIPE}\n{text}\n")
    expect(2, *named, arguments=build_arguments(recipe, tmp_path), cwd=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_gives_the_command_that_would_make_it(tmp_path: Path) -> None:
    recipe = tmp_path / "missing.yaml"
    recipe.write_text(f"schema: 1\nname: m\nextend: {TINY_RECIPE}\ncheckpoint: {{path: nowhere}}\n")
    message = expect(2, "nowhere", arguments=build_arguments(recipe, tmp_path), cwd=tmp_path)
    assert "checkpoint synthesize" in message or "curl" in message


def test_a_truncated_checkpoint_is_named(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    arguments = (*build_arguments(TINY_RECIPE, tmp_path), "--checkpoint", checkpoint)
    expect(2, "model.safetensors", arguments=arguments, cwd=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_misshapen_tensor_is_named_with_both_shapes(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.norm.weight"
    right = list(tensors[name].shape)
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, checkpoint / "model.safetensors")
    arguments = (*build_arguments(TINY_RECIPE, tmp_path), "--checkpoint", checkpoint)
    expect(2, name, str(right), str([right[0] - 1]), arguments=arguments, cwd=tmp_path)


def test_an_unreadable_image_is_named(tiny: Build, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really a photograph")
    arguments = ("generate", tiny.bundle, "--image", "photo.jpg", "--prompt", "What is it?")
    expect(2, "photo.jpg", arguments=arguments, cwd=tmp_path)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    expect(2, "nothing-here", arguments=("verify", "nothing-here"), cwd=tmp_path)
    arguments = ("generate", "nothing-here", "--prompt", "hello")
    expect(2, "nothing-here", arguments=arguments, cwd=tmp_path)


def test_a_flipped_byte_in_the_manifest_is_caught(tiny: Build, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.bundle, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    text = (copy / "manifest.json").read_text()
    digest = manifest["files"][0]["sha256"]
    flipped = ("0" if digest[0] != "0" else "1") + digest[1:]
    (copy / "manifest.json").write_text(text.replace(digest, flipped))
    result = run_cli("verify", copy, cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert "manifest" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_an_output_that_cannot_be_written_keeps_what_is_there(tiny: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "bundle"
    arguments = ("build", TINY_RECIPE, "--store", tiny.store, "--out", out, "--quiet")
    expect(2, "file", arguments=arguments, cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "in the way"
