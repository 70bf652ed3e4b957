"""Writes a FastVLM as MLX reads it, tensor by tensor: the model is never in memory as a whole."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastvlm_compile.checkpoint.safetensors_writer import Blocks, TensorSpec
from fastvlm_compile.checkpoint.shards import MAX_SHARD_BYTES, plan_shards, write_shards
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.mlx.check import check_mlx_integers
from fastvlm_compile.export.mlx.config import mlx_config, quantization_section
from fastvlm_compile.export.mlx.encoding import MlxArrays, encode
from fastvlm_compile.export.mlx.limits import check_mlx_layout
from fastvlm_compile.export.mlx.names import MlxLayout, to_mlx
from fastvlm_compile.export.mlx.plan import FloatDtype, Placed, plan_tensors
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import HEAD_PROJECTION, LM_HEAD
from reference.checkpoint.tensors import Checkpoint
from reference.config import read_config_json

_BLOCK_VALUES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class MlxExport:
    """What decides an MLX folder besides the weights.

    Attributes:
        layout: whose names and parts.
        dtype: of what is not quantized; scales and biases of what is are float16 always.
        tower_dtype: of the vision tower alone; None for `dtype`.
        max_shard_bytes: a larger model is split into several files with an index.
    """

    layout: MlxLayout
    dtype: FloatDtype = "float16"
    tower_dtype: FloatDtype | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES


def export_mlx(
    config: MlxExport,
    checkpoint: Checkpoint,
    quantized: QuantizedWeights | None,
    out: Path,
    progress: Progress,
) -> None:
    """Write `config.json` and `model.safetensors` (or shards and their index) into `out`.

    Args:
        config: layout and dtype.
        checkpoint: the weights, in either layout.
        quantized: the quantized ones; None for none.
        out: exists. Tokenizer and processor files are not written.
        progress: told of every tensor, in megabytes.

    Raises:
        MlxUnsupportedError: MLX or the layout cannot hold a quantized tensor; nothing is written
            unless the reason is in its scales.
        ExportError: a value does not fit the dtype, or what is read back is not what was
            quantized.
    """
    shapes = expected_tensors(checkpoint.config)
    schemes = _schemes(config.layout, checkpoint, quantized)
    planned = plan_tensors(
        shapes,
        schemes,
        layout=config.layout,
        tied=checkpoint.tied,
        dtype=config.dtype,
        tower_dtype=config.tower_dtype,
    )
    source = _Source(checkpoint=checkpoint, quantized=quantized, planned=planned)
    shards = plan_shards(
        [placed.spec for placed in planned], max_shard_bytes=config.max_shard_bytes
    )
    write_shards(out, shards, source.blocks, progress)
    raw = mlx_config(
        read_config_json(checkpoint.path),
        tied=checkpoint.tied,
        layout=config.layout,
        quantization=quantization_section(schemes, shapes, config.layout),
    )
    (out / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    if quantized is not None:
        check_mlx_integers(out, quantized, config.layout)


def _schemes(
    layout: MlxLayout, checkpoint: Checkpoint, quantized: QuantizedWeights | None
) -> Mapping[str, Affine]:
    """Of the quantized tensors that the layout holds."""
    if quantized is None:
        return {}
    shapes = expected_tensors(checkpoint.config)
    for name, entry in quantized.entries.items():
        if shapes.get(name) != entry.shape:
            raise ExportError(f"{name} {list(entry.shape)} is quantized, but not in the checkpoint")
    given = {name: entry.scheme for name, entry in quantized.entries.items()}
    check_mlx_layout(layout, given, shapes, tied=checkpoint.tied)
    return {
        name: scheme
        for name, scheme in given.items()
        if isinstance(scheme, Affine)
        and to_mlx(name, layout) is not None
        and not (checkpoint.tied and name == LM_HEAD)
    }


class _Source:
    """The bytes of planned tensors. Keeps the arrays of one quantized tensor, no more."""

    def __init__(
        self,
        *,
        checkpoint: Checkpoint,
        quantized: QuantizedWeights | None,
        planned: tuple[Placed, ...],
    ) -> None:
        self._checkpoint = checkpoint
        self._quantized = quantized
        self._placed = {placed.spec.name: placed for placed in planned}
        self._kept: tuple[str, MlxArrays] | None = None

    def blocks(self, spec: TensorSpec) -> Blocks:
        """Of one tensor; files ask for scales and biases of a module one after the other."""
        placed = self._placed[spec.name]
        if placed.part == "values":
            return self._values(placed)
        return [_memory(getattr(self._arrays(placed.name), placed.part))]

    def _arrays(self, name: str) -> MlxArrays:
        if self._kept is None or self._kept[0] != name:
            assert self._quantized is not None, "only quantized tensors have parts"
            self._kept = None  # let go of the last before the next is read
            self._kept = (name, encode(name, self._quantized.read(name)))
        return self._kept[1]

    def _values(self, placed: Placed) -> Iterator[memoryview]:
        dtype = getattr(torch, placed.spec.dtype)
        if placed.name == HEAD_PROJECTION and placed.name not in self._checkpoint.tensors:
            # mlx-vlm wants it, FastVLM reads the feature map before it: any values will do.
            yield _memory(np.zeros(placed.spec.shape, dtype=placed.spec.dtype))
            return
        tensor = _channels_last(self._checkpoint.read(placed.name))
        step = max(1, _BLOCK_VALUES * len(tensor) // max(1, tensor.numel()))
        for start in range(0, len(tensor), step):
            block = tensor[start : start + step].to(dtype)
            if not torch.isfinite(block).all():
                raise ExportError(f"{placed.name}: a value is not finite in {placed.spec.dtype}")
            yield _memory(block.contiguous().numpy())


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """As `plan.mlx_shape` says."""
    if tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1)
    return tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor


def _memory(array: npt.NDArray[Any]) -> memoryview:
    assert sys.byteorder == "little", "safetensors are little endian"
    return np.ascontiguousarray(array).reshape(-1).data.cast("B")
