"""The root of a bundle is what transformers.js, transformers and our own reader look for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastvlm_compile.bundle.chat_template import chat_template
from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.bundle.root_files import default_dtypes, external_data_chunks, root_files
from fastvlm_compile.checkpoint.configs import to_transformers_config
from fastvlm_compile.errors import BundleError
from reference.config import load_config
from reference.errors import ConfigError
from reference.preprocess import preprocess
from reference.prompt import build_prompt, load_tokenizer

RawConfig = dict[str, object]
PATHS = ("onnx/vision_encoder.onnx", "onnx/vision_encoder.onnx_data", "onnx/embed_tokens.onnx")


@pytest.fixture
def bundle(
    raw_config: RawConfig, tokenizer_dir: Path, contract: InputContract, tmp_path: Path
) -> Path:
    return write(tmp_path / "root", raw_config, tokenizer_dir, contract)


def write(folder: Path, raw: RawConfig, tokenizer: Path, contract: InputContract) -> Path:
    folder.mkdir()
    files = root_files(
        raw_config=raw, tied=True, tokenizer_dir=tokenizer, contract=contract, paths=PATHS
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_every_file_that_transformers_js_looks_for_is_there(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }


def test_the_config_reads_as_the_checkpoints_with_what_the_bundle_decides(bundle: Path) -> None:
    config = load_config(bundle)
    assert config.vision.image_size == 128
    assert config.vision.widths == (8, 16, 32, 64, 128)
    assert config.image_aspect_ratio == "pad"
    assert config.text.tie_word_embeddings
    assert config.text.hidden_size == 32
    assert config.context_length == 2048
    assert config.image_token_id == 303
    assert config.eos_token_ids == (302,)


def test_the_config_is_what_transformers_js_expects(bundle: Path) -> None:
    config = read(bundle / "config.json")
    assert config["model_type"] == "llava_qwen2"
    assert config["architectures"] == ["LlavaQwen2ForCausalLM"]
    assert config["transformers.js_config"] == {
        "use_external_data_format": {"vision_encoder.onnx": 1}
    }
    assert "_name_or_path" not in config
    assert read(bundle / "processor_config.json")["processor_class"] == "LlavaProcessor"


def test_a_transformers_checkpoint_gives_the_same_kind_of_config(
    raw_config: RawConfig,
    bundle: Path,
    tokenizer_dir: Path,
    contract: InputContract,
    tmp_path: Path,
) -> None:
    converted = to_transformers_config(raw_config, source="x", tied=True, image_token_id=303)
    other = write(tmp_path / "other", converted, tokenizer_dir, contract)
    ours, theirs = load_config(bundle), load_config(other)
    assert theirs.layout == "apple"
    assert theirs.vision == replace(ours.vision, projection_dim=theirs.vision.projection_dim)
    assert theirs.text == ours.text
    assert theirs.eos_token_ids == ours.eos_token_ids


def test_external_data_is_counted_in_chunks_per_graph() -> None:
    paths = [
        *PATHS,
        "onnx/decoder_model_merged_q4.onnx",
        "onnx/decoder_model_merged_q4.onnx_data",
        "onnx/decoder_model_merged_q4.onnx_data_1",
        "coreml/x.onnx_data",
    ]
    expected = {"decoder_model_merged_q4.onnx": 2, "vision_encoder.onnx": 1}
    assert external_data_chunks(paths) == expected
    assert external_data_chunks(["onnx/vision_encoder.onnx"]) == {}


def test_the_image_token_is_added_once_and_the_other_ids_stay(
    bundle: Path,
    tokenizer_dir: Path,
    raw_config: RawConfig,
    contract: InputContract,
    tmp_path: Path,
) -> None:
    before, after = load_tokenizer(tokenizer_dir), load_tokenizer(bundle)
    assert before.token_id("<image>") is None
    assert after.token_id("<image>") == 303
    text = "<|im_start|>user\nHow many squares?<|im_end|>"
    assert after.encode(text) == before.encode(text)
    again = write(tmp_path / "again", raw_config, bundle, contract)
    assert (again / "tokenizer.json").read_bytes() == (bundle / "tokenizer.json").read_bytes()


def test_transformers_reads_the_tokenizer_of_the_bundle_alike(bundle: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(bundle)
    prompt = build_prompt("How many squares are there?")
    assert load_tokenizer(bundle).encode(prompt) == theirs(prompt)["input_ids"]
    assert theirs.convert_tokens_to_ids("<image>") == 303
    assert theirs.eos_token == "<|im_end|>"


def test_a_model_without_a_row_for_the_image_token_is_told(
    raw_config: RawConfig, tokenizer_dir: Path, contract: InputContract, tmp_path: Path
) -> None:
    raw_config["vocab_size"] = 303
    with pytest.raises(BundleError, match="id 303, but the model has embeddings for 303 ids"):
        write(tmp_path / "root", raw_config, tokenizer_dir, contract)


def test_a_checkpoint_that_names_no_end_token_ends_at_the_end_of_the_turn(
    raw_config: RawConfig, tokenizer_dir: Path, contract: InputContract, tmp_path: Path
) -> None:
    del raw_config["eos_token_id"]
    folder = write(tmp_path / "root", raw_config, tokenizer_dir, contract)
    assert load_config(folder).eos_token_ids == (302,)
    assert read(folder / "generation_config.json")["eos_token_id"] == [302]


def test_a_config_that_is_not_fastvlms_is_refused(
    raw_config: RawConfig, tokenizer_dir: Path, contract: InputContract, tmp_path: Path
) -> None:
    raw_config["mm_projector_type"] = "linear"
    with pytest.raises(ConfigError, match="mm_projector_type"):
        write(tmp_path / "root", raw_config, tokenizer_dir, contract)


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_chat_template_renders_the_prompt_of_the_reference(position: Any, bundle: Path) -> None:
    from transformers import AutoTokenizer

    template = chat_template(position)
    tokenizer = AutoTokenizer.from_pretrained(bundle)

    def render(messages: list[dict[str, Any]]) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )

    parts = [{"type": "image"}, {"type": "text", "text": " Why?\n"}, {"type": "image"}]
    expected = build_prompt(" Why?\n", image_position=position, num_images=2)
    assert render([{"role": "user", "content": parts}]) == expected
    assert render([{"role": "user", "content": "Why <image>?"}]) == build_prompt("Why <image>?")
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "Why?"}
    assert render([system, user]) == build_prompt("Why?", num_images=0, system="Be brief.")


def test_the_chat_template_is_in_both_places_where_consumers_look(bundle: Path) -> None:
    template = (bundle / "chat_template.jinja").read_text()
    assert template == chat_template("before")
    assert read(bundle / "tokenizer_config.json")["chat_template"] == template


def test_the_image_processor_of_transformers_sees_the_pixels_of_the_crop(bundle: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(bundle)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(preprocess(image, size=128, fit="crop"), expected)


def test_the_same_checkpoint_gives_the_same_bytes(
    raw_config: RawConfig,
    bundle: Path,
    tokenizer_dir: Path,
    contract: InputContract,
    tmp_path: Path,
) -> None:
    shuffled = dict(reversed(raw_config.items()))
    other = write(tmp_path / "other", shuffled, tokenizer_dir, contract)
    for path in bundle.iterdir():
        assert (other / path.name).read_bytes() == path.read_bytes()


def test_transformers_js_is_told_the_file_of_fewest_bits_of_each_graph(
    raw_config: RawConfig, tokenizer_dir: Path, contract: InputContract, tmp_path: Path
) -> None:
    graphs = ("vision_encoder", "embed_tokens", "decoder_model_merged")
    plain = [f"onnx/{graph}.onnx" for graph in graphs]
    assert default_dtypes(plain) == dict.fromkeys(graphs, "fp32")
    four = [f"onnx/{graph}_q4.onnx" for graph in graphs[1:]]
    expected = {"vision_encoder": "q8", "embed_tokens": "q4", "decoder_model_merged": "q4"}
    paths = [*plain, *four, "onnx/vision_encoder_quantized.onnx"]
    assert default_dtypes(paths) == expected
    in_wasm = default_dtypes(paths, plain_embedding=True)
    assert in_wasm == {**expected, "embed_tokens": "fp32"}
    assert default_dtypes(plain[:2]) == {}
    config = root_files(
        raw_config=raw_config,
        tied=True,
        tokenizer_dir=tokenizer_dir,
        contract=contract,
        paths=iter(plain),
    )["config.json"]
    assert json.loads(config)["transformers.js_config"] == {"dtype": default_dtypes(plain)}
