"""Each clause of what Apple's app reads, broken once, is found and told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from apple_app_folders import IMAGE_ID, arrays_of, config_of, write, write_folder
from safetensors.numpy import load_file, save_file

from validation.consumers import apple_app
from validation.consumers.apple_app import folder_problems
from validation.consumers.apple_app_files import PACKAGE, WEIGHTS

Break = Callable[[Path], None]
LAYER = "language_model.model.layers.0"


@pytest.fixture(autouse=True)
def _no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's clauses have tests of their own below."""
    monkeypatch.setattr(apple_app, "package_clauses", lambda _: ())


def changed(name: str, *path: str, to: object = None) -> Break:
    """Sets a key of a JSON file, or takes it away for None."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        if to is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = to
        write(folder, name, content)

    return apply


def tensor(name: str, to: np.ndarray | None) -> Break:
    """Replaces, adds or takes away a tensor."""

    def apply(folder: Path) -> None:
        arrays = load_file(folder / WEIGHTS)
        arrays.pop(name, None)
        if to is not None:
            arrays[name] = to
        save_file(arrays, folder / WEIGHTS)

    return apply


def halves(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.float16)


CONFIG, SHAPE = "config.json", "preprocessor_config.json"
PROCESSOR, TOKENIZER = "processor_config.json", "tokenizer_config.json"
QUERY = f"{LAYER}.self_attn.q_proj"

NOT_HALVES = np.zeros(128, dtype=np.float32)


def written(name: str, text: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return apply


def gone(name: str) -> Break:
    def apply(folder: Path) -> None:
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()

    return apply


BROKEN: dict[str, tuple[Break, str]] = {
    "no config": (gone(CONFIG), "config.json: missing"),
    "a damaged config": (written(CONFIG, "{"), "config.json: not a JSON object"),
    "no tokenizer": (gone("tokenizer.json"), "tokenizer.json: missing"),
    "no package": (gone(PACKAGE), "fastvithd.mlpackage: missing"),
    "no weights": (gone(WEIGHTS), "found no weights"),
    "shards": (written("model-2.safetensors", ""), "expected model.safetensors alone"),
    "damaged weights": (written(WEIGHTS, "no weights"), "not a safetensors file"),
    "model_type": (changed(CONFIG, "model_type", to="fast_vlm"), "model_type: expected"),
    "mm_hidden_size": (changed(CONFIG, "mm_hidden_size", to=768), "expected 3072, found 768"),
    "a size is missing": (changed(CONFIG, "hidden_size"), "hidden_size: expected a whole number"),
    "heads": (changed(CONFIG, "num_attention_heads", to=5), "a divisor of hidden_size 128"),
    "image token": (changed(CONFIG, "image_token_index", to=-200), "image_token_index: expected"),
    "no image token": (changed(CONFIG, "image_token_index"), "image_token_index: expected"),
    "tie": (changed(CONFIG, "tie_word_embeddings"), "missing is true"),
    "a tie that the weights have not": (
        changed(CONFIG, "tie_word_embeddings", to=True),
        "lm_head.weight: the app has no place for it",
    ),
    "rope_theta": (changed(CONFIG, "rope_theta", to="1e6"), "rope_theta: expected a number"),
    "rope_scaling": (changed(CONFIG, "rope_scaling", to={"type": "yarn"}), "rope_scaling"),
    "group size": (changed(CONFIG, "quantization", "group_size", to=32), "expected 64, found 32"),
    "bits": (changed(CONFIG, "quantization", "bits", to=6), "expected 4 or 8, found 6"),
    "a form of its own": (
        changed(CONFIG, "quantization", "multi_modal_projector.linear_0", to={"bits": 8}),
        "one form for all, found multi_modal_projector.linear_0",
    ),
    "quantization of what is not": (changed(CONFIG, "quantization"), "expected F16 [128, 128]"),
    "mean": (changed(SHAPE, "image_mean", to=[0.5, 0.5, 0.5]), "image_mean: expected"),
    "std": (changed(SHAPE, "image_std", to=[0.5, 0.5, 0.5]), "image_std: expected"),
    "size": (changed(SHAPE, "size", "shortest_edge", to=512), "size: expected"),
    "crop": (changed(SHAPE, "crop_size", "height", to=512), "crop_size: expected"),
    "processor class": (changed(SHAPE, "processor_class"), "processor_class: expected"),
    "the other processor class": (
        changed(PROCESSOR, "processor_class", to="FastVLMProcessor"),
        "processor_config.json: processor_class",
    ),
    "image text": (changed(PROCESSOR, "image_token", to="<img>"), "image_token: expected"),
    "patch": (changed(PROCESSOR, "patch_size", to=32), "patch_size: expected 64, found 32"),
    "additional": (changed(PROCESSOR, "num_additional_image_tokens", to=1), "expected 0, found 1"),
    "no added token": (
        changed(TOKENIZER, "added_tokens_decoder", str(IMAGE_ID)),
        f"added_tokens_decoder[{IMAGE_ID}]: expected <image>, found None",
    ),
    "not special": (
        changed(TOKENIZER, "added_tokens_decoder", str(IMAGE_ID), "special", to=False),
        "expected a special token",
    ),
    "another id": (
        changed("tokenizer.json", "added_tokens", to=[{"id": 7, "content": "<image>"}]),
        "with id 323, found [7]",
    ),
    "a missing tensor": (tensor(f"{QUERY}.weight", None), f"{QUERY}.weight: missing"),
    "a tensor too many": (
        tensor("vision_tower.head.proj", halves(4)),
        "vision_tower.head.proj: the app has no place for it",
    ),
    "another name": (
        tensor("mm_projector.0.bias", halves(128)),
        "mm_projector.0.bias: the app has no place for it",
    ),
    "a matrix that is not quantized": (
        tensor(f"{QUERY}.weight", halves(128, 128)),
        f"{QUERY}.weight: expected U32 [128, 16], found F16 [128, 128]",
    ),
    "packed along the outputs": (
        tensor(f"{QUERY}.weight", np.zeros((16, 128), dtype=np.uint32)),
        f"{QUERY}.weight: expected U32 [128, 16], found U32 [16, 128]",
    ),
    "packed in bytes": (
        tensor(f"{QUERY}.weight", np.zeros((128, 64), dtype=np.uint8)),
        f"{QUERY}.weight: expected U32 [128, 16], found U8 [128, 64]",
    ),
    "scales in groups of 32": (
        tensor(f"{QUERY}.scales", halves(128, 4)),
        f"{QUERY}.scales: expected F16 [128, 2], found F16 [128, 4]",
    ),
    "scales in float32": (
        tensor(f"{QUERY}.scales", np.zeros((128, 2), dtype=np.float32)),
        f"{QUERY}.scales: expected F16 [128, 2], found F32 [128, 2]",
    ),
    "no biases of a matrix": (tensor(f"{QUERY}.biases", None), f"{QUERY}.biases: missing"),
    "a quantized norm": (
        tensor(f"{LAYER}.input_layernorm.scales", halves(1)),
        f"{LAYER}.input_layernorm.scales: the app has no place for it",
    ),
    "a norm in float32": (
        tensor(f"{LAYER}.input_layernorm.weight", NOT_HALVES),
        f"{LAYER}.input_layernorm.weight: expected F16 [128], found F32 [128]",
    ),
}


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_folder_that_keeps_every_clause_has_no_problems(tmp_path: Path, bits: int | None) -> None:
    assert folder_problems(write_folder(tmp_path / "app", bits)) == ()


def test_a_tied_model_has_no_head(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "app", 4)
    config = config_of(4) | {"tie_word_embeddings": True}
    write(folder, CONFIG, config)
    save_file(arrays_of(config), folder / WEIGHTS)
    assert not any("lm_head" in name for name in load_file(folder / WEIGHTS))
    assert folder_problems(folder) == ()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_clause_is_found_and_told(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "app", 4)
    apply, expected = BROKEN[name]
    apply(folder)
    told = folder_problems(folder)
    assert any(expected in problem for problem in told), told


def test_every_matrix_of_a_quantized_folder_is_quantized_and_nothing_else(tmp_path: Path) -> None:
    arrays = load_file(write_folder(tmp_path / "app", 8) / WEIGHTS)
    packed = {name for name, array in arrays.items() if array.dtype == np.uint32}
    assert len(packed) == 7 + 2 + 1 + 1  # a layer's linears, the projector, embedding and head
    vectors = {name for name, array in arrays.items() if array.ndim == 1}
    assert all(name.endswith((".bias", "norm.weight")) for name in vectors)
