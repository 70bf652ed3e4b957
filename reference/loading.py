"""Loads a checkpoint directory into the reference model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from reference.checkpoint.names import HEAD_PROJECTION, LM_HEAD, to_module
from reference.checkpoint.tensors import open_checkpoint
from reference.config import FastVLMConfig
from reference.fastvlm import FastVLM


class Weights(Protocol):
    """A `Checkpoint`, or what stands for one."""

    @property
    def config(self) -> FastVLMConfig: ...

    @property
    def tensors(self) -> Iterable[str]:
        """Canonical names."""
        ...

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor by canonical name."""
        ...


def load(path: Path | str, dtype: torch.dtype = torch.float32) -> FastVLM:
    """The reference model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a checkpoint directory in either layout, safetensors or pickled, single or sharded,
            float32, float16 or bfloat16 on disk.
        dtype: of the model's parameters.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or not what its config says.
        ConfigError: its config is not FastVLM's.
    """
    return build(open_checkpoint(Path(path)), dtype)


def build(checkpoint: Weights, dtype: torch.dtype = torch.float32) -> FastVLM:
    """The reference model of opened weights; see `load`."""
    with torch.device("meta"):
        model = FastVLM(checkpoint.config)
    state: dict[str, torch.Tensor] = {}
    for name in checkpoint.tensors:
        tensor = checkpoint.read(name)
        state[to_module(name)] = tensor.to(dtype) if tensor.is_floating_point() else tensor.clone()
    _fill_optional(model, state, tied=checkpoint.tied, dtype=dtype)
    model.load_state_dict(state, strict=True, assign=True)
    if checkpoint.tied:
        model.language.lm_head.weight = model.language.embed_tokens.weight
    return model.eval().requires_grad_(requires_grad=False)


def _fill_optional(
    model: nn.Module, state: dict[str, torch.Tensor], *, tied: bool, dtype: torch.dtype
) -> None:
    """Give the tensors that a file may lack the values that change nothing."""
    if tied:
        state[to_module(LM_HEAD)] = state["language.embed_tokens.weight"]
    for name, tensor in model.state_dict().items():
        if name in state:
            continue
        if name.endswith(".num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        elif name == to_module(HEAD_PROJECTION):
            state[name] = torch.zeros(tensor.shape, dtype=dtype)
