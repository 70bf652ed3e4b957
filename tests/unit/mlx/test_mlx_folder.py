"""An MLX folder holds the names, shapes, integers and config that its loaders ask for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_helpers import all_in_app, quantize, rounded, symmetric, write_mlx, write_quantized
from safetensors import safe_open

from fastvlm_compile.checkpoint.configs import apple_config
from fastvlm_compile.checkpoint.sizes import size_named
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.mlx.encoding import MlxFileError
from fastvlm_compile.export.mlx.limits import MlxUnsupportedError
from fastvlm_compile.export.mlx.names import MlxLayout, to_mlx
from fastvlm_compile.export.mlx.plan import bits_per_weight, plan_tensors
from fastvlm_compile.export.mlx.read import read_mlx
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import parse_config

Quantized = Callable[[int], QuantizedWeights]
VISION = "model.vision_tower.vision_tower.model."


def config_of(folder: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("layout", ["apple_app", "mlx_vlm"])
def test_every_quantized_tensor_reads_back_bit_for_bit(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path, layout: MlxLayout, bits: int
) -> None:
    weights = quantized(bits)
    folder = read_mlx(write_mlx(checkpoint, weights, tmp_path / "out", layout=layout))
    names = {to_mlx(name, layout): name for name in weights.entries}
    assert set(folder.quantized) == set(names)
    for mlx_name in folder.quantized:
        found, expected = folder.read(mlx_name), weights.read(names[mlx_name])
        assert found.scheme == expected.scheme
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.scales.tobytes() == expected.scales.tobytes()


def test_the_app_gets_its_names_shapes_and_dtypes(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, quantized(4), tmp_path / "out", layout="apple_app")
    tensors = mx.load(str(folder / "model.safetensors"))
    assert isinstance(tensors, dict)
    found = {name: (list(array.shape), str(array.dtype)[9:]) for name, array in tensors.items()}
    expected: dict[str, tuple[list[int], str]] = {}

    def linear(module: str, rows: int, columns: int, *, bias: bool) -> None:
        expected[f"{module}.weight"] = ([rows, columns // 8], "uint32")
        expected[f"{module}.scales"] = ([rows, columns // 64], "float16")
        expected[f"{module}.biases"] = ([rows, columns // 64], "float16")
        if bias:
            expected[f"{module}.bias"] = ([rows], "float16")

    linear("language_model.model.embed_tokens", 336, 64, bias=False)
    linear("language_model.lm_head", 336, 64, bias=False)
    linear("multi_modal_projector.linear_0", 64, 256, bias=True)
    linear("multi_modal_projector.linear_2", 64, 64, bias=True)
    expected["language_model.model.norm.weight"] = ([64], "float16")
    for index in range(2):
        layer = f"language_model.model.layers.{index}"
        for name, rows in (("q_proj", 64), ("k_proj", 32), ("v_proj", 32)):
            linear(f"{layer}.self_attn.{name}", rows, 64, bias=True)
        linear(f"{layer}.self_attn.o_proj", 64, 64, bias=False)
        linear(f"{layer}.mlp.gate_proj", 128, 64, bias=False)
        linear(f"{layer}.mlp.up_proj", 128, 64, bias=False)
        linear(f"{layer}.mlp.down_proj", 64, 128, bias=False)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            expected[f"{layer}.{norm}.weight"] = ([64], "float16")
    assert found == expected
    config = config_of(folder)
    assert config["quantization"] == {"group_size": 64, "bits": 4}
    assert config["model_type"] == "llava_qwen2"
    assert config["tie_word_embeddings"] is False
    assert config["image_token_index"] == 323
    assert config["mm_hidden_size"] == 256


def test_the_tower_is_stored_with_channels_last(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = read_mlx(write_mlx(checkpoint, None, tmp_path / "out"))
    tower = "vision_tower.vision_model."
    for inner, mlx_inner in (
        ("patch_embed.0.reparam_conv.weight", "patch_embed.blocks.0.reparam_conv.weight"),
        ("network.1.proj.0.lkb_reparam.weight", "network.1.proj.0.lkb_reparam.weight"),
        ("network.0.0.convffn.fc1.weight", "network.0.0.convffn.fc1.weight"),
    ):
        expected = checkpoint.read(VISION + inner).permute(0, 2, 3, 1).half().numpy()
        np.testing.assert_array_equal(folder.read_values(tower + mlx_inner), expected)
    scale = folder.read_values(f"{tower}network.7.0.layer_scale_1")
    expected = checkpoint.read(f"{VISION}network.7.0.layer_scale_1").permute(1, 2, 0).half().numpy()
    np.testing.assert_array_equal(scale, expected)
    assert scale.shape == (1, 1, 64)
    assert not any("num_batches_tracked" in name for name in folder.files)
    assert config_of(folder.folder)["image_token_index"] == -200, "mlx-vlm's mark of an image"
    assert "quantization" not in config_of(folder.folder)


def test_a_tied_head_is_stored_once(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    tied = open_checkpoint(make_checkpoint(intermediate_size=128, tie_word_embeddings=True))
    assert tied.tied
    weights = quantize(tied, tmp_path / "quantized", all_in_app(symmetric(8, 64)))
    folder = write_mlx(tied, weights, tmp_path / "out", layout="apple_app")
    assert not any("lm_head" in name for name in read_mlx(folder).files)
    assert config_of(folder)["tie_word_embeddings"] is True


def test_modules_of_other_bits_are_named_in_the_config(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def choose(name: str, role: str) -> object:
        if "v_proj" in name or role.startswith("vision") or role == "other":
            return None
        return symmetric(8, 32) if role == "projector" else symmetric(4, 64)

    weights = quantize(checkpoint, tmp_path / "quantized", choose)  # type: ignore[arg-type]
    out = write_mlx(checkpoint, weights, tmp_path / "out")
    other = {"group_size": 32, "bits": 8}
    assert config_of(out)["quantization"] == {
        "group_size": 64,
        "bits": 4,
        "mm_projector.0": other,
        "mm_projector.2": other,
    }
    found = read_mlx(out).read("mm_projector.0.weight")
    expected = weights.read("model.mm_projector.0.weight")
    np.testing.assert_array_equal(found.dequantize(), expected.dequantize())
    with pytest.raises(MlxUnsupportedError, match="mm_projector"):
        write_mlx(checkpoint, weights, tmp_path / "app", layout="apple_app")
    assert not any((tmp_path / "app").iterdir()), "refused before anything is written"


def test_a_large_model_is_split_with_an_index(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    whole = read_mlx(write_mlx(checkpoint, quantized(4), tmp_path / "whole"))
    out = write_mlx(checkpoint, quantized(4), tmp_path / "split", max_shard_bytes=100_000)
    split = read_mlx(out)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(set(split.files.values())) > 2
    assert index["weight_map"] == dict(sorted(split.files.items()))
    assert split.files.keys() == whole.files.keys()
    for name in whole.files:
        np.testing.assert_array_equal(split.read_values(name), whole.read_values(name))


def test_two_exports_give_the_same_bytes(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    one, two = (write_mlx(checkpoint, quantized(4), tmp_path / name) for name in "ab")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_transformers_layout_gives_the_same_folder(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    apple, other = (
        write_mlx(
            open_checkpoint(make_checkpoint(name=layout, layout=layout)), None, tmp_path / name
        )
        for layout, name in (("apple", "a"), ("transformers", "b"))
    )
    one, two = read_mlx(apple), read_mlx(other)
    assert one.files.keys() == two.files.keys()
    for name in one.files:
        if name != "vision_tower.vision_model.head.proj":
            np.testing.assert_array_equal(one.read_values(name), two.read_values(name))
    # timm's tower has no head; mlx-vlm wants one, of which nothing is read.
    assert not two.read_values("vision_tower.vision_model.head.proj").any()


def test_a_value_that_overflows_float16_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Loud(Checkpoint):
        def read(self, name: str) -> torch.Tensor:
            tensor = super().read(name)
            return tensor.float() * 1e6 if name == "model.norm.weight" else tensor

    loud = Loud(path=checkpoint.path, config=checkpoint.config, tensors=checkpoint.tensors)
    with pytest.raises(ExportError, match=r"model\.norm\.weight"):
        write_mlx(loud, None, tmp_path / "half")
    assert not any((tmp_path / "half").iterdir())
    write_mlx(loud, None, tmp_path / "full", dtype="float32")


def test_quantized_tensors_of_another_checkpoint_are_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tensor = rounded(np.ones((64, 64), dtype=np.float32), symmetric(4, 64))
    weights = write_quantized(tmp_path / "q", {"model.layers.9.self_attn.q_proj.weight": tensor})
    with pytest.raises(ExportError, match=r"layers\.9"):
        write_mlx(checkpoint, weights, tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "no config", "empty"])
def test_a_damaged_folder_is_told(checkpoint: Checkpoint, tmp_path: Path, damage: str) -> None:
    out = write_mlx(checkpoint, None, tmp_path / "out", layout="apple_app")
    weights = out / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "no config":
        (out / "config.json").unlink()
    else:
        weights.unlink()
    with pytest.raises(MlxFileError):
        read_mlx(out)


@pytest.mark.parametrize(("bits", "block", "most"), [(4, 64, 4.6), (4, 128, 4.4), (8, 64, 8.6)])
@pytest.mark.parametrize("size", ["0.5b", "1.5b", "7b"])
def test_the_released_sizes_take_few_bits_a_weight(
    size: str, bits: int, block: int, most: float
) -> None:
    config = parse_config(apple_config(size_named(size)), source="test")
    shapes = expected_tensors(config)
    schemes = {
        name: symmetric(bits, block)
        for name, shape in shapes.items()
        if role_of(name, shape) in ("embedding", "head", "language", "projector")
    }
    planned = plan_tensors(shapes, schemes, layout="apple_app", tied=False, dtype="float16")
    language = [placed for placed in planned if not placed.name.startswith("model.mm_projector")]
    for tensors in (planned, language):
        found = bits_per_weight(tensors, shapes)
        # Two float16 values a group beside the codes, then norms and biases.
        assert bits + 32 / block < found <= most
    none = plan_tensors(shapes, {}, layout="apple_app", tied=False, dtype="float16")
    assert bits_per_weight(none, shapes) == 16


def test_the_plan_says_what_is_written(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path
) -> None:
    weights = quantized(4)
    out = write_mlx(checkpoint, weights, tmp_path / "out", layout="apple_app")
    schemes = {name: symmetric(4, 64) for name in weights.entries}
    shapes = expected_tensors(checkpoint.config)
    planned = plan_tensors(shapes, schemes, layout="apple_app", tied=False, dtype="float16")
    data_bytes = sum(placed.spec.size_bytes for placed in planned)
    written = (out / "model.safetensors").stat().st_size
    header = int.from_bytes((out / "model.safetensors").read_bytes()[:8], "little")
    assert written == 8 + header + data_bytes
    doubled = [replace(placed, spec=replace(placed.spec, dtype="float32")) for placed in planned]
    assert bits_per_weight(doubled, shapes) > bits_per_weight(planned, shapes)


def test_the_tower_alone_can_be_float32(
    checkpoint: Checkpoint, quantized: Callable[[int], QuantizedWeights], tmp_path: Path
) -> None:
    folder = write_mlx(checkpoint, quantized(4), tmp_path / "out", tower_dtype="float32")
    with safe_open(str(folder / "model.safetensors"), framework="numpy") as file:
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    tower = {name for name in dtypes if name.startswith("vision_tower.")}
    assert {dtypes[name] for name in tower} == {"F32"}
    assert {dtypes[name] for name in dtypes.keys() - tower} == {"F16", "U32"}
