"""Splits a checkpoint into safetensors files as Hugging Face does, and writes them one by one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.checkpoint.safetensors_writer import (
    Blocks,
    TensorSpec,
    file_size_bytes,
    write_safetensors,
)
from fastvlm_compile.progress import Progress

MAX_SHARD_BYTES = 5_000_000_000
"""The limit of `transformers` when the released checkpoints were saved."""

_METADATA = {"format": "pt"}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a checkpoint and what goes into it."""

    file: str
    tensors: tuple[TensorSpec, ...]


def plan_shards(
    tensors: Sequence[TensorSpec], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> tuple[Shard, ...]:
    """Fill one file after another, in the given order; a single file gets the plain name."""
    groups: list[list[TensorSpec]] = [[]]
    size_bytes = 0
    for tensor in tensors:
        if groups[-1] and size_bytes + tensor.size_bytes > max_shard_bytes:
            groups.append([])
            size_bytes = 0
        groups[-1].append(tensor)
        size_bytes += tensor.size_bytes
    if len(groups) == 1:
        return (Shard(file="model.safetensors", tensors=tuple(groups[0])),)
    return tuple(
        Shard(
            file=f"model-{number:05d}-of-{len(groups):05d}.safetensors",
            tensors=tuple(group),
        )
        for number, group in enumerate(groups, start=1)
    )


def shards_size_bytes(shards: Sequence[Shard]) -> int:
    """Bytes of all the files, headers included."""
    return sum(file_size_bytes(shard.tensors, _METADATA) for shard in shards)


def write_shards(
    directory: Path,
    shards: Sequence[Shard],
    blocks: Callable[[TensorSpec], Blocks],
    progress: Progress,
) -> None:
    """Write the files, and `model.safetensors.index.json` when there are several.

    Args:
        directory: exists.
        shards: from `plan_shards`.
        blocks: the values of a tensor, see `write_safetensors`.
        progress: told after each tensor, in megabytes.
    """
    total_mb = max(1, _megabytes(sum(t.size_bytes for s in shards for t in s.tensors)))
    done_bytes = 0

    for shard in shards:

        def reported(tensor: TensorSpec, file: str = shard.file) -> Blocks:
            nonlocal done_bytes
            progress(_megabytes(done_bytes), total_mb, f"{file}: {tensor.name}")
            for block in blocks(tensor):
                yield block
                done_bytes += len(block)

        write_safetensors(directory / shard.file, shard.tensors, reported, metadata=_METADATA)
    progress(total_mb, total_mb, "weights written")
    if len(shards) > 1:
        write_index(directory, shards)


def write_index(directory: Path, shards: Sequence[Shard]) -> None:
    """`model.safetensors.index.json`: which tensor is in which file."""
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    total = sum(tensor.size_bytes for shard in shards for tensor in shard.tensors)
    index = {
        "metadata": {"total_size": total},
        "weight_map": dict(sorted(weight_map.items())),
    }
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _megabytes(size_bytes: int) -> int:
    return size_bytes // 1_000_000
