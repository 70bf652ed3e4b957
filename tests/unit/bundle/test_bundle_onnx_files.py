"""What a bundle with ONNX graphs carries beside them."""

import ast
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.bundle.onnx_files import EXAMPLE, example_source, onnx_files
from fastvlm_compile.bundle.root_files import root_files
from fastvlm_compile.recipe import OnnxTarget
from reference.preprocess import load_image, preprocess

TARGET = OnnxTarget(variants=("fp32", "int4"), logits="last", opset=21, genai="int4")


@pytest.fixture
def root(
    raw_config: dict[str, object], tokenizer_dir: Path, contract: InputContract
) -> dict[str, bytes]:
    return root_files(
        raw_config=raw_config, tied=False, tokenizer_dir=tokenizer_dir, contract=contract, paths=()
    )


@pytest.fixture
def pixel_values() -> Any:
    """The example's function; the rest of it needs a bundle."""
    tree = ast.parse(example_source())
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    module = ModuleType("example")
    exec(compile(tree, EXAMPLE, "exec"), module.__dict__)
    return module.pixel_values


def test_the_example_is_short_and_needs_four_packages() -> None:
    source = example_source().decode()
    assert len(source.splitlines()) <= 60
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    others = imported - sys.stdlib_module_names
    assert others == {"numpy", "onnxruntime", "PIL", "tokenizers"}


@pytest.mark.parametrize("size", [(90, 51), (51, 90), (128, 128), (257, 300)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_the_example_sees_images_as_the_reference_does(
    fit: Any, size: tuple[int, int], pixel_values: Any, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    expected = preprocess(load_image(path), size=128, fit=fit)
    found = pixel_values(path, 128, fit)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    other = preprocess(load_image(path), size=128, fit="crop" if fit == "pad" else "pad")
    assert np.array_equal(found, other) == (size[0] == size[1])


def test_genai_finds_the_graphs_of_the_variant_that_the_recipe_names(
    root: dict[str, bytes], contract: InputContract
) -> None:
    files = onnx_files(TARGET, root, contract)
    model = json.loads(files["genai_config.json"])["model"]
    assert {part: model[part]["filename"] for part in ("vision", "embedding", "decoder")} == {
        "vision": "onnx/vision_quantized.onnx",
        "embedding": "onnx/embedding_q4.onnx",
        "decoder": "onnx/decoder_model_merged_q4.onnx",
    }


def test_genai_is_told_the_sizes_and_ends_of_the_model(
    root: dict[str, bytes], contract: InputContract
) -> None:
    document = json.loads(onnx_files(TARGET, root, contract)["genai_config.json"])
    model, decoder = document["model"], document["model"]["decoder"]
    assert model["image_token_id"] == json.loads(root["config.json"])["image_token_index"]
    assert model["eos_token_id"] == [302]
    assert (model["vocab_size"], model["context_length"]) == (304, contract.context_length)
    assert (decoder["head_size"], decoder["num_hidden_layers"]) == (8, 2)
    assert (decoder["num_attention_heads"], decoder["num_key_value_heads"]) == (4, 2)
    assert document["search"]["max_length"] == contract.context_length


def test_without_genai_or_onnx_there_is_less(
    root: dict[str, bytes], contract: InputContract
) -> None:
    plain = OnnxTarget(variants=("fp32",), logits="last", opset=21)
    assert set(onnx_files(plain, root, contract)) == {EXAMPLE}
    assert onnx_files(None, root, contract) == {}
