"""The PyTorch reference behind the `Runtime` interface."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from reference.decoding import Session
from reference.loading import load
from reference.session import TorchSession
from validation.runtimes.base import Floats, Ids

if TYPE_CHECKING:
    from reference.fastvlm import FastVLM


class TorchRuntime:
    """Runs a `FastVLM` on the CPU.

    Args:
        model: in evaluation mode; its parameters decide the precision.
    """

    executed_by_core_ml = False

    def __init__(self, model: "FastVLM") -> None:
        self._model = model
        self._dtype = model.language.norm.weight.dtype

    @property
    def executor(self) -> str:
        """`torch 2.13.0 (CPU, float32)`."""
        version = torch.__version__.split("+")[0]
        return f"torch {version} (CPU, {str(self._dtype).removeprefix('torch.')})"

    @torch.inference_mode()
    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included."""
        pixels = torch.from_numpy(pixel_values).to(self._dtype)
        return _floats(self._model.encode_image(pixels))

    @torch.inference_mode()
    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return _floats(self._model.embed(torch.from_numpy(input_ids)))

    @torch.inference_mode()
    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V]."""
        logits, _ = self._model.language(torch.from_numpy(inputs_embeds).to(self._dtype))
        return _floats(logits)

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        return TorchSession(self._model.language, torch.from_numpy(inputs_embeds).to(self._dtype))


def open_torch(directory: Path) -> TorchRuntime:
    """The runtime of a checkpoint directory, in float32.

    Raises:
        CheckpointError, ConfigError: see `reference.loading.load`.
    """
    return TorchRuntime(load(directory))


def _floats(tensor: torch.Tensor) -> Floats:
    return np.ascontiguousarray(tensor.float().numpy())
