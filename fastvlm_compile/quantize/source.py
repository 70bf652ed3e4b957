"""A checkpoint whose quantized tensors read as what they dequantize to.

The reference loaded from it shows what quantization alone costs, before any encoder or runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.config import FastVLMConfig

if TYPE_CHECKING:
    from reference.checkpoint.storage import TensorInfo
    from reference.checkpoint.tensors import Checkpoint
    from reference.weights import Rows


@dataclass(frozen=True, kw_only=True)
class DequantizedCheckpoint:
    """A `Checkpoint` seen through its quantized tensors."""

    checkpoint: "Checkpoint"
    quantized: QuantizedWeights

    @property
    def config(self) -> FastVLMConfig:
        """The checkpoint's."""
        return self.checkpoint.config

    @property
    def tensors(self) -> "Mapping[str, TensorInfo]":
        """The checkpoint's."""
        return self.checkpoint.tensors

    @property
    def tied(self) -> bool:
        """The checkpoint's."""
        return self.checkpoint.tied

    def read(self, name: str) -> torch.Tensor:
        """The dequantized tensor in float32, or the checkpoint's own."""
        name = self._shared(name)
        if name not in self.quantized.entries:
            return self.checkpoint.read(name)
        return torch.from_numpy(self.quantized.read(name).dequantize())

    def rows(self, name: str) -> "Rows":
        """The same; its codes are read at once, rows are dequantized when they are asked for."""
        name = self._shared(name)
        if name not in self.quantized.entries:
            return self.checkpoint.rows(name)
        return DequantizedRows(self.quantized.read(name))

    def _shared(self, name: str) -> str:
        """A file may hold the tensor of a tied head twice."""
        return EMBED_TOKENS if name == LM_HEAD and self.tied else name


class DequantizedRows:
    """Rows of a quantized tensor [O, ...], float32."""

    def __init__(self, tensor: QuantizedTensor) -> None:
        self._tensor = tensor

    def __getitem__(self, rows: slice | torch.Tensor, /) -> torch.Tensor:
        """Dequantizes these rows alone."""
        if isinstance(rows, slice):
            return torch.from_numpy(self._tensor.rows(rows).dequantize())
        ids = rows.numpy()
        values = self._tensor.rows(ids.reshape(-1)).dequantize()
        return torch.from_numpy(values.reshape(*ids.shape, *values.shape[1:]))
