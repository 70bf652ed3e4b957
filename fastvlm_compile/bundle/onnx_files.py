"""What a bundle with ONNX graphs carries beside them: an example, and a config for genai."""

from collections.abc import Mapping
from pathlib import Path

from fastvlm_compile.bundle.genai_config import GENAI_CONFIG, genai_config_file
from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.recipe import OnnxTarget

EXAMPLE = "example/answer.py"
"""A question answered with onnxruntime alone; it finds the bundle as the folder above its own."""


def example_source() -> bytes:
    """The example as it stands in every bundle. It is a script: nothing of ours imports it."""
    return (Path(__file__).parent / EXAMPLE).read_bytes()


def onnx_files(
    target: OnnxTarget | None, root: Mapping[str, bytes], contract: InputContract
) -> dict[str, bytes]:
    """Path -> content; nothing without the target.

    Args:
        target: what is built.
        root: the files at the bundle's root.
        contract: what the bundle expects.
    """
    if target is None:
        return {}
    files = {EXAMPLE: example_source()}
    if target.genai is not None:
        files[GENAI_CONFIG] = genai_config_file(root, contract, target.genai)
    return files
