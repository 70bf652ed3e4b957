"""Loads a checkpoint directory into the reference model."""

from pathlib import Path

import torch
from torch import nn

from reference.checkpoint.names import EMBED_TOKENS, HEAD_PROJECTION, LM_HEAD, to_module
from reference.checkpoint.tensors import open_checkpoint
from reference.fastvlm import FastVLM
from reference.streaming import stream_language
from reference.weights import Weights


def load(
    path: Path | str, dtype: torch.dtype = torch.float32, *, resident_bytes: int | None = None
) -> FastVLM:
    """The reference model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a checkpoint directory in either layout, safetensors or pickled, single or sharded,
            float32, float16 or bfloat16 on disk.
        dtype: of the model's parameters.
        resident_bytes: of decoder layers and head that stay in memory; the others are read when
            they run (`reference.streaming`; `reference.budget` has what is good). None for a
            model that is in memory as a whole. Results are the same to the bit.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or not what its config says.
        ConfigError: its config is not FastVLM's.
    """
    return build(open_checkpoint(Path(path)), dtype, resident_bytes=resident_bytes)


def build(
    checkpoint: Weights, dtype: torch.dtype = torch.float32, *, resident_bytes: int | None = None
) -> FastVLM:
    """The reference model of opened weights; see `load`."""
    with torch.device("meta"):
        model = FastVLM(checkpoint.config)
    streamed: frozenset[str] = frozenset()
    if resident_bytes is not None:
        streamed = stream_language(
            model.language, checkpoint, dtype=dtype, resident_bytes=resident_bytes
        )
    state: dict[str, torch.Tensor] = {}
    for name in checkpoint.tensors:
        if to_module(name) not in streamed:
            state[to_module(name)] = _copied(checkpoint.read(name), dtype)
    _fill_optional(model, state, dtype)
    if checkpoint.tied and to_module(LM_HEAD) not in streamed:
        table = state.get(to_module(EMBED_TOKENS))
        state[to_module(LM_HEAD)] = (
            _copied(checkpoint.read(EMBED_TOKENS), dtype) if table is None else table
        )
    absent = streamed & model.state_dict().keys()
    found = model.load_state_dict(state, strict=False, assign=True)
    assert set(found.missing_keys) == absent, found
    assert not found.unexpected_keys, found
    if checkpoint.tied and resident_bytes is None:
        model.language.lm_head.weight = model.language.embed_tokens.weight
    return model.eval().requires_grad_(requires_grad=False)


def _copied(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In memory of its own: where a view of a file lies can change how its products are summed."""
    return tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _fill_optional(model: nn.Module, state: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Give the tensors that a file may lack the values that change nothing."""
    for name, tensor in model.state_dict().items():
        if name in state:
            continue
        if name.endswith(".num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        elif name == to_module(HEAD_PROJECTION):
            state[name] = torch.zeros(tensor.shape, dtype=dtype)
