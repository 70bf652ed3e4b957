"""Folders of a bundle that others load by themselves are complete by themselves."""

import json
from pathlib import Path

import pytest

from fastvlm_compile.bundle.folder_files import apple_app_files, mlx_files
from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.bundle.root_files import root_files


@pytest.fixture
def root(
    raw_config: dict[str, object], tokenizer_dir: Path, contract: InputContract
) -> dict[str, bytes]:
    return root_files(
        raw_config=raw_config,
        tied=False,
        tokenizer_dir=tokenizer_dir,
        contract=contract,
        paths=["onnx/vision_encoder.onnx_data"],
    )


def test_an_mlx_folder_gets_processor_tokenizer_and_template_of_the_root(
    root: dict[str, bytes],
) -> None:
    files = mlx_files(root, "mlx/int4")
    assert set(files) == {
        "mlx/int4/chat_template.jinja",
        "mlx/int4/generation_config.json",
        "mlx/int4/preprocessor_config.json",
        "mlx/int4/processor_config.json",
        "mlx/int4/tokenizer.json",
        "mlx/int4/tokenizer_config.json",
    }
    assert all(content == root[path.rpartition("/")[2]] for path, content in files.items())


def test_the_apps_config_has_the_image_token_and_the_quantization(
    root: dict[str, bytes], tmp_path: Path
) -> None:
    section = {"bits": 4, "group_size": 64}
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization": section, "image_token_index": None})
    )
    files = apple_app_files(root, tmp_path)
    config = json.loads(files["apple_app/config.json"])
    decoder = json.loads(files["apple_app/tokenizer_config.json"])["added_tokens_decoder"]
    assert config["quantization"] == section
    assert decoder[str(config["image_token_index"])]["content"] == "<image>"
    assert config["tie_word_embeddings"] is False
    assert "transformers.js_config" in json.loads(root["config.json"])
    assert "transformers.js_config" not in config
    assert {"apple_app/vocab.json", "apple_app/merges.txt"} <= set(files)
