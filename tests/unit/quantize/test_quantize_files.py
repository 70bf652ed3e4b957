"""Quantized checkpoints on disk, and the checkpoint that reads through them."""

import json

import numpy as np
import pytest
import torch

from fastvlm_compile.quantize.presets import PRESETS, check_holds, resolve
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, Palette, SchemeError
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    INDEX,
    QuantizedEntry,
    QuantizedFileError,
    file_name,
    open_quantized,
    write_index,
    write_tensor,
)
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.tensors import open_checkpoint
from reference.loading import build, load

NAME = "model.layers.0.mlp.up_proj.weight"


def a_tensor(shape=(6, 40), *, symmetric=False):
    rng = np.random.default_rng(0)
    return QuantizedTensor(
        scheme=Affine(bits=4, block_size=16, symmetric=symmetric),
        codes=rng.integers(0, 16, size=shape, dtype=np.uint8),
        scales=rng.uniform(0.01, 0.1, size=(shape[0], -(-shape[1] // 16))).astype(np.float16),
        zero_points=np.empty(0, np.uint8)
        if symmetric
        else rng.integers(0, 16, size=(shape[0], -(-shape[1] // 16)), dtype=np.uint8),
        tables=np.empty(0, dtype=np.float16),
    )


def a_palette(shape=(4, 10)):
    rng = np.random.default_rng(0)
    return QuantizedTensor(
        scheme=Palette(bits=3, group_size=2, channel_scale=True),
        codes=rng.integers(0, 8, size=shape, dtype=np.uint8),
        scales=rng.uniform(0.5, 1, size=shape[0]).astype(np.float16),
        zero_points=np.empty(0, dtype=np.uint8),
        tables=np.sort(rng.normal(size=(shape[0] // 2, 8)).astype(np.float16), axis=1),
    )


def entry(tensor):
    return QuantizedEntry(
        scheme=tensor.scheme,
        shape=tensor.shape,
        method="search",
        relative_error=0.05,
        size_bytes=tensor.size_bytes,
    )


def write(folder, name, tensor):
    write_tensor(folder, name, tensor)
    write_index(folder, {name: entry(tensor)})


@pytest.mark.parametrize("tensor", [a_tensor(), a_tensor(symmetric=True), a_palette()])
def test_what_was_written_is_read_bit_for_bit(tmp_path, tensor):
    write(tmp_path, NAME, tensor)
    opened = open_quantized(tmp_path)
    assert opened.entries == {NAME: entry(tensor)}
    found = opened.read(NAME)
    for part in ("codes", "scales", "zero_points", "tables"):
        assert np.array_equal(getattr(found, part), getattr(tensor, part))


def test_a_file_that_is_cut_is_refused_by_name(tmp_path):
    write(tmp_path, NAME, a_tensor())
    path = tmp_path / file_name(NAME)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(QuantizedFileError, match=NAME):
        open_quantized(tmp_path).read(NAME)


def test_a_file_of_another_scheme_is_refused(tmp_path):
    write(tmp_path, NAME, a_tensor())
    write_tensor(tmp_path, NAME, a_tensor(symmetric=True))
    with pytest.raises(QuantizedFileError, match="expected"):
        open_quantized(tmp_path).read(NAME)


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.clear(),
        lambda index: index.update(schema=7),
        lambda index: index["tensors"][NAME]["scheme"].update(kind="magic"),
        lambda index: index["tensors"][NAME]["scheme"].update(block_size=5),
        lambda index: index["tensors"][NAME].pop("shape"),
        lambda index: index["tensors"][NAME].update(size_bytes="many"),
    ],
)
def test_a_damaged_index_is_refused_by_name(tmp_path, damage):
    write(tmp_path, NAME, a_tensor())
    index = json.loads((tmp_path / INDEX).read_text())
    damage(index)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(QuantizedFileError, match=INDEX):
        open_quantized(tmp_path)


def test_parts_are_read_as_one_and_must_not_overlap(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "a.weight"), (two, "b.weight")):
        folder.mkdir()
        write(folder, name, a_tensor())
    both = open_quantized(one, two)
    assert set(both.entries) == {"a.weight", "b.weight"}
    assert np.array_equal(both.read("b.weight").codes, a_tensor().codes)
    with pytest.raises(QuantizedFileError, match="as well"):
        open_quantized(one, one)


def test_a_checkpoint_reads_through_its_quantized_tensors(tmp_path, random_checkpoint):
    checkpoint = open_checkpoint(random_checkpoint)
    tensor = a_tensor(checkpoint.tensors[NAME].shape)
    write(tmp_path, NAME, tensor)
    seen = DequantizedCheckpoint(checkpoint=checkpoint, quantized=open_quantized(tmp_path))
    assert np.array_equal(seen.read(NAME).numpy(), tensor.dequantize())
    model, plain = build(seen), load(random_checkpoint)
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, plain.state_dict()[name])
    }
    assert changed == {"language.layers.0.mlp.up_proj.weight"}


def test_every_role_is_found_in_a_checkpoint_and_nothing_else_is_quantized(random_checkpoint):
    shapes = expected_tensors(open_checkpoint(random_checkpoint).config)
    roles = {role_of(name, shape) for name, shape in shapes.items()}
    assert len(roles) == 9
    for name, shape in shapes.items():
        if name.endswith(("norm.weight", ".bias", "bn.weight", "layer_scale")):
            assert role_of(name, shape) == "other"


def test_a_name_stands_for_one_quantization_and_for_one_part():
    found, parts = {}, {}
    for preset in PRESETS.values():
        for quantization in preset.quantizations.values():
            assert found.setdefault(quantization.name, quantization) == quantization
            for part in quantization.parts.values():
                assert parts.setdefault(part.name, part) == part
    rules = [part.rules for part in parts.values()]
    assert len(set(rules)) == len(rules), "equal rules under two names"
    int4 = PRESETS["int4"].quantizations
    assert int4["onnx"].parts == int4["coreml"].parts


def test_a_preset_resolves_to_every_weight_but_the_depthwise_ones():
    shapes = {
        "model.embed_tokens.weight": (512, 128),
        "lm_head.weight": (512, 128),
        "model.layers.0.mlp.up_proj.weight": (384, 128),
        "model.layers.0.input_layernorm.weight": (128,),
        "model.mm_projector.0.weight": (128, 512),
        "model.vision_tower.vision_tower.model.patch_embed.1.reparam_conv.weight": (16, 1, 3, 3),
        "model.vision_tower.vision_tower.model.patch_embed.2.reparam_conv.weight": (16, 16, 1, 1),
    }
    parts = PRESETS["int4"].quantizations["onnx"].parts
    choices = resolve(tuple(rule for part in parts.values() for rule in part.rules), shapes)
    assert set(choices) == set(shapes) - {
        "model.layers.0.input_layernorm.weight",
        "model.vision_tower.vision_tower.model.patch_embed.1.reparam_conv.weight",
    }


def test_a_group_that_does_not_divide_is_refused_by_the_tensors_name():
    with pytest.raises(SchemeError, match=r"lm_head\.weight: groups of 16"):
        check_holds("lm_head.weight", Palette(bits=4, group_size=16), (40, 8))
