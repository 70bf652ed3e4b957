"""A checkpoint whose quantized tensors read as what they dequantize to.

The reference loaded from it shows what quantization alone costs, before any encoder or runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.config import FastVLMConfig

if TYPE_CHECKING:
    from reference.checkpoint.storage import TensorInfo
    from reference.checkpoint.tensors import Checkpoint


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
        if name == LM_HEAD and self.tied:
            name = EMBED_TOKENS  # a file may hold the shared tensor twice
        if name not in self.quantized.entries:
            return self.checkpoint.read(name)
        return torch.from_numpy(self.quantized.read(name).dequantize())
