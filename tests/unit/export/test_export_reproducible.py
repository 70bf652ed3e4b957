"""The same checkpoint gives the same bytes, in whatever folder, and none that name this machine."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from export_helpers import decoder_config, export_all

from fastvlm_compile.export.coreml.canonical import canonical_digest
from fastvlm_compile.export.onnx.export import export_decoder
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import open_checkpoint


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def exported_again(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_all(random_checkpoint, tmp_path_factory.mktemp("elsewhere") / "second-folder")


def test_two_exports_in_two_folders_are_byte_for_byte_equal(
    exported: Path, exported_again: Path
) -> None:
    found = digests(exported)
    package = "fastvithd.mlpackage"
    assert found.keys() == {
        "decoder_model_merged.onnx",
        "embed_tokens.onnx",
        "vision_encoder.onnx",
        *(
            f"{precision}/{package}/{file}"
            for precision in ("float16", "float32")
            for file in (
                "Manifest.json",
                "Data/com.apple.CoreML/model.mlmodel",
                "Data/com.apple.CoreML/weights/weight.bin",
            )
        ),
    }
    assert found == digests(exported_again)
    for precision in ("float16", "float32"):
        assert canonical_digest(exported / precision / package) == canonical_digest(
            exported_again / precision / package
        )


def test_another_checkpoint_gives_another_digest(
    exported: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    other = open_checkpoint(make_checkpoint(seed=1))
    out = tmp_path / "out"
    out.mkdir()
    saved = export_decoder(decoder_config(other), other, out, silent)
    path = exported / "decoder_model_merged.onnx"
    assert hashlib.sha256(path.read_bytes()).hexdigest() not in digests(out).values()
    assert saved.graph.stat().st_size == path.stat().st_size


def machine_marks() -> list[bytes]:
    """What would betray the machine: folders, the user, source files."""
    marks = {str(Path.cwd()), str(Path.home()), os.__file__.rpartition("/")[0], "/tmp/", ".py"}
    return [mark.encode() for mark in marks]


def test_no_file_names_a_folder_or_a_source_file_of_this_machine(
    exported: Path, random_checkpoint: Path
) -> None:
    marks = [*machine_marks(), str(random_checkpoint).encode(), str(exported).encode()]
    for path in exported.rglob("*"):
        # Weights are left out: any four bytes may stand in them.
        if path.is_file() and path.name != "weight.bin":
            content = path.read_bytes()
            assert [mark for mark in marks if len(mark) > 3 and mark in content] == [], path.name
    # Negative control: the marks are such that a stack trace would show.
    assert any(mark in f'File "{__file__}", line 1'.encode() for mark in marks)
