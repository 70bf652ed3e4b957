"""The traced module itself, and the packages that ship against it in their own precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_language_helpers import (
    PREFILL_CHUNK,
    decoder_config,
    open_decoder,
    random_rows,
    relative_l2,
)

from fastvlm_compile.export.coreml.language.module import ChunkFunction, load_weights
from fastvlm_compile.export.coreml.language.plan import split
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.checkpoint.tensors import Checkpoint
from reference.qwen2 import RMSNorm


def functions_in_float16_values(
    checkpoint: Checkpoint, scratch: Path
) -> tuple[ChunkFunction, ChunkFunction]:
    """Prefill and decode in float32 arithmetic over the constants that float16 packages hold."""
    config = decoder_config(checkpoint, precision="float16")
    (chunk,) = split(config)
    weights = load_weights(chunk, config, checkpoint, scratch)
    for parameter in weights.parameters():
        parameter.data = parameter.data.half().float()
    for part in weights.modules():
        if isinstance(part, RMSNorm):
            part.eps = float(np.float16(part.eps))
    prefill = ChunkFunction(weights, chunk, config, "prefill")
    decode = ChunkFunction(weights, chunk, config, "decode")
    for function in (prefill, decode):
        function.rotary = function.get_buffer("rotary").half().float()
    decode.key_cache, decode.value_cache = prefill.key_cache, prefill.value_cache
    return prefill, decode


def test_the_packages_that_ship_are_exact_but_for_their_float16_constants(
    checkpoint: Checkpoint, float16: Path, tmp_path: Path
) -> None:
    """The float32 sibling has no state; here the states are held to its tolerance as well."""
    prefill, decode = functions_in_float16_values(checkpoint, tmp_path / "weights")
    rows = random_rows(PREFILL_CHUNK + 3).astype(np.float16).astype(np.float32)
    decoder = open_decoder(float16)
    memory = decoder.new_memory()

    def number(value: int) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.int32)

    inputs = torch.from_numpy(rows)[None]
    with torch.no_grad():
        first = prefill(inputs[:, :PREFILL_CHUNK], number(0), number(PREFILL_CHUNK))
    found = decoder.append(rows[:PREFILL_CHUNK], memory)
    assert relative_l2(found, first[0, 0].numpy()) <= 1e-5
    for place in range(PREFILL_CHUNK, len(rows)):
        with torch.no_grad():
            expected = decode(inputs[:, place : place + 1], number(place))[0, 0].numpy()
        found = decoder.append(rows[place : place + 1], memory)
        assert relative_l2(found, expected) <= 1e-5, place


@pytest.mark.parametrize(("tied", "name"), [(True, EMBED_TOKENS), (False, LM_HEAD)])
def test_the_head_is_the_embedding_where_they_are_tied(
    checkpoint: Checkpoint, tmp_path: Path, *, tied: bool, name: str
) -> None:
    config = decoder_config(checkpoint, tied=tied, max_chunk_mb=0.062)
    *_, third, fourth = split(config)
    halves = [
        load_weights(chunk, config, checkpoint, tmp_path / str(chunk.number)).lm_head.weight
        for chunk in (third, fourth)
    ]
    assert torch.equal(torch.cat(halves), checkpoint.read(name).float())


def test_weights_are_float32_and_take_no_gradients(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = decoder_config(checkpoint)
    (chunk,) = split(config)
    weights = load_weights(chunk, config, checkpoint, tmp_path / "weights")
    for name, parameter in weights.named_parameters():
        assert parameter.dtype == torch.float32, name
        assert not parameter.requires_grad, name
