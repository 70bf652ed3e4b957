"""Loaders that others wrote accept the folders: `mlx-lm`'s, and mlx-vlm's where it is installed."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_helpers import IN_APP, symmetric, write_mlx
from mlx_lm.utils import load_model

from fastvlm_compile.checkpoint.configs import apple_config
from fastvlm_compile.checkpoint.sizes import size_named
from fastvlm_compile.export.mlx.config import mlx_config, quantization_section
from fastvlm_compile.export.mlx.plan import plan_tensors
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.tensors import Checkpoint
from reference.config import parse_config
from validation.runtimes.mlx_runtime import open_mlx

Quantized = Callable[[int], QuantizedWeights]


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_mlx_lm_loads_the_language_model_by_itself(
    checkpoint: Checkpoint, quantized: Quantized, tmp_path: Path, bits: int | None
) -> None:
    folder = write_mlx(
        checkpoint,
        None if bits is None else quantized(bits),
        tmp_path / "out",
        layout="apple_app",
    )
    alone = tmp_path / "language"
    alone.mkdir()
    tensors = mx.load(str(folder / "model.safetensors"))
    assert isinstance(tensors, dict)
    prefix = "language_model."
    mx.save_safetensors(
        str(alone / "model.safetensors"),
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
    )
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2"}
    (alone / "config.json").write_text(json.dumps(config))
    model, _ = load_model(alone)
    assert isinstance(model.lm_head, nn.Linear if bits is None else nn.QuantizedLinear)
    ids = np.random.default_rng(0).integers(0, 320, (1, 9))
    runtime = open_mlx(folder, compute="float16")
    found = np.array(model(mx.array(ids)).astype(mx.float32))
    np.testing.assert_array_equal(found, runtime.logits(runtime.embed(ids)))


def mixed(name: str, role: str) -> Affine | None:
    """4 bits for most, 8 for the projector and the tower's linears, one kind left in float16."""
    if "v_proj" in name:
        return None
    if role in ("projector", "vision_linear"):
        return symmetric(8, 32)
    return symmetric(4, 64) if role in IN_APP else None


@pytest.mark.parametrize("form", ["float16", "int4", "mixed"])
@pytest.mark.parametrize("size", ["0.5b", "7b"])
def test_mlx_vlm_has_a_place_for_every_tensor_and_wants_no_other(size: str, form: str) -> None:
    fastvlm = pytest.importorskip(
        "mlx_vlm.models.fastvlm", reason="mlx-vlm is not installed: it brings OpenCV and more"
    )
    raw = apple_config(size_named(size))
    shapes = expected_tensors(parse_config(raw, source="test"))
    schemes: dict[str, Affine] = {}
    for name, shape in shapes.items():
        role = role_of(name, shape)
        scheme = mixed(name, role) if form == "mixed" else None
        if form == "int4" and role in IN_APP:
            scheme = symmetric(4, 64)
        if scheme is not None:
            schemes[name] = scheme
    planned = plan_tensors(shapes, schemes, layout="mlx_vlm", tied=False, dtype="float16")
    quantization = quantization_section(schemes, shapes, "mlx_vlm")
    config = mlx_config(raw, tied=False, layout="mlx_vlm", quantization=quantization)
    model_config = fastvlm.ModelConfig.from_dict(dict(config))
    for part in ("text", "vision"):  # as mlx-vlm's `update_module_configs` does
        kind = getattr(fastvlm, f"{part.capitalize()}Config")
        given = getattr(model_config, f"{part}_config")
        setattr(model_config, f"{part}_config", kind.from_dict(given))
    assert model_config.image_token_index == -200
    model = fastvlm.Model(model_config)  # lazy: nothing of it is computed
    scales = {placed.spec.name for placed in planned if placed.part == "scales"}
    if quantization:
        nn.quantize(
            model,
            group_size=64,
            bits=4,
            class_predicate=lambda path, _: (
                quantization.get(path, True) if f"{path}.scales" in scales else False
            ),
        )
    wanted = {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    assert {placed.spec.name: placed.spec.shape for placed in planned} == wanted
