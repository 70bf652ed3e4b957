"""`mlx` computes from a folder what the reference computes from the same integers."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_helpers import relative_l2, write_mlx
from safetensors.numpy import load_file, save_file

from fastvlm_compile.export.mlx.names import MlxLayout
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.errors import CheckpointError
from reference.fastvlm import FastVLM
from reference.loading import build
from validation.runtimes.mlx_model import MlxFolderError
from validation.runtimes.mlx_runtime import MlxRuntime, open_mlx
from validation.runtimes.torch_runtime import TorchRuntime

Quantized = Callable[[int], QuantizedWeights]

EXACT = 1e-5
"""float32 sums in another order; measured below 1e-6 on this model."""
HALF = 1e-1
"""The CPU kernel of quantized matrices sums up in float16; measured 3e-2 after a few steps."""


def reference_of(checkpoint: Checkpoint, quantized: QuantizedWeights | None) -> FastVLM:
    if quantized is None:
        return build(checkpoint)
    return build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized))


def random_inputs(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    side = checkpoint.config.vision.image_size
    pixels = rng.random((2, 3, side, side), dtype=np.float32)
    return pixels, rng.integers(0, 320, (2, 12)).astype(np.int64)


def worst_error(runtime: MlxRuntime, model: FastVLM, checkpoint: Checkpoint) -> float:
    """Over images, embeddings, logits, and the last of three steps with reordered rows."""
    reference = TorchRuntime(model)
    pixels, ids = random_inputs(checkpoint)
    embeds = reference.embed(ids)
    pairs = [
        (runtime.encode_image(pixels), reference.encode_image(pixels)),
        (runtime.embed(ids), embeds),
        (runtime.logits(embeds), reference.logits(embeds)),
    ]
    sessions = (runtime.session(embeds[:1]), reference.session(embeds[:1]))
    pairs.append((sessions[0].start(), sessions[1].start()))
    for rows, tokens in (([0, 0, 0], [3, 5, 7]), ([2, 0], [1, 4]), ([1], [9])):
        for session in sessions:
            session.select(np.array(rows))
        found, expected = (session.step(np.array(tokens)) for session in sessions)
        pairs.append((found, expected))
    assert all(found.dtype == np.float32 for found, _ in pairs)
    return max(relative_l2(found, expected) for found, expected in pairs)


def tower_of(model: FastVLM) -> Callable[[np.ndarray], np.ndarray]:
    with torch.inference_mode():
        return lambda pixels: model.vision_tower(torch.from_numpy(pixels)).detach().numpy()


@pytest.mark.parametrize("layout", ["mlx_vlm", "apple_app"])
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_mlx_computes_what_the_reference_computes(
    checkpoint: Checkpoint,
    quantized: Quantized,
    tmp_path: Path,
    bits: int | None,
    layout: MlxLayout,
) -> None:
    weights = None if bits is None else quantized(bits)
    model = reference_of(checkpoint, weights)
    folder = write_mlx(checkpoint, weights, tmp_path / "out", layout=layout)
    vision = tower_of(model) if layout == "apple_app" else None
    assert worst_error(open_mlx(folder, vision=vision), model, checkpoint) <= EXACT
    half = worst_error(open_mlx(folder, vision=vision, compute="float16"), model, checkpoint)
    assert EXACT < half <= HALF


def test_a_tied_head_is_computed_from_the_embedding(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    tied = open_checkpoint(make_checkpoint(tie_word_embeddings=True))
    folder = write_mlx(tied, None, tmp_path / "out")
    assert worst_error(open_mlx(folder), build(tied), tied) <= EXACT


@pytest.mark.parametrize(
    ("part", "roll_axis"), [("scales", 1), ("biases", 0), ("scales", 0), ("weight", 0)]
)
def test_misplaced_scales_biases_or_codes_are_seen(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path, part: str, roll_axis: int
) -> None:
    folder = write_mlx(checkpoint, quantized(4), tmp_path / "out")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = f"language_model.model.layers.0.mlp.down_proj.{part}"
    tensors[name] = np.ascontiguousarray(np.roll(tensors[name], 1, axis=roll_axis))
    save_file(tensors, path)
    model = reference_of(checkpoint, quantized(4))
    assert worst_error(open_mlx(folder), model, checkpoint) > 100 * EXACT


def test_the_reference_of_other_bits_is_told_apart(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, quantized(8), tmp_path / "out")
    assert worst_error(open_mlx(folder), reference_of(checkpoint, None), checkpoint) > 100 * EXACT


def test_the_executor_names_mlx_its_device_and_the_precision(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, None, tmp_path / "out")
    device = "CPU" if mx.default_device() == mx.Device(mx.cpu) else "GPU"
    runtime = open_mlx(folder, compute="float16")
    assert runtime.executor == f"mlx {version('mlx')} ({device}, float16)"
    assert not runtime.executed_by_core_ml


def test_a_folder_without_a_tower_needs_one_beside_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    runtime = open_mlx(write_mlx(checkpoint, None, tmp_path / "out", layout="apple_app"))
    pixels, _ = random_inputs(checkpoint)
    with pytest.raises(MlxFolderError, match="no vision tower"):
        runtime.encode_image(pixels)


def test_a_split_model_is_loaded_by_its_index(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, quantized(4), tmp_path / "out", max_shard_bytes=100_000)
    model = reference_of(checkpoint, quantized(4))
    assert worst_error(open_mlx(folder), model, checkpoint) <= EXACT
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(MlxFolderError, match="model-00002"):
        open_mlx(folder)


@pytest.mark.parametrize("damage", ["truncated", "missing", "unexpected", "misshapen"])
def test_a_damaged_folder_is_told(checkpoint: Checkpoint, tmp_path: Path, damage: str) -> None:
    folder = write_mlx(checkpoint, None, tmp_path / "out")
    path = folder / "model.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        tensors = load_file(path)
        norm = tensors.pop("language_model.model.norm.weight")
        if damage != "missing":
            kept = norm[:9] if damage == "misshapen" else norm
            tensors["language_model.model.norm.weight"] = kept
        if damage == "unexpected":
            tensors["language_model.model.other.weight"] = norm
        save_file(tensors, path)
    with pytest.raises(MlxFolderError):
        open_mlx(folder)


def test_a_folder_without_weights_or_with_a_wrong_quantization_is_told(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, quantized(4), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    for wrong in ("4 bits", {"bits": 4}):
        (folder / "config.json").write_text(json.dumps(config | {"quantization": wrong}))
        with pytest.raises(MlxFolderError, match="quantization"):
            open_mlx(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        open_mlx(folder)
