"""Writes safetensors files as a stream: the header first, then one block of values after another.

The `safetensors` library wants all tensors of a file in memory at once; a 7B model does not fit.

Source: the format as the safetensors README gives it: eight bytes with the header's length
(little endian), the header (JSON, padded with spaces so that the data is aligned), the data of all
tensors without gaps, in the order of their offsets.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from reference.checkpoint.storage import DTYPES, ITEM_BYTES

_STORED_DTYPES = {usual: stored for stored, usual in DTYPES.items()} | {"uint32": "U32"}
"""Packed codes go into files that we write, but not into a checkpoint that we read."""

_ITEM_BYTES = ITEM_BYTES | {"uint32": 4}

_ALIGNMENT = 8
"""The data starts at a multiple of the widest element, so that a memory map can be cast."""

Blocks = Iterable[memoryview | bytes]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """What a file's header says of one tensor."""

    name: str
    dtype: str
    """The usual name of it: float16, bfloat16, float32, int64, uint32, ..."""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def file_size_bytes(tensors: Sequence[TensorSpec], metadata: Mapping[str, str]) -> int:
    """Bytes of the file that `write_safetensors` would write."""
    return len(_header(_in_file_order(tensors), metadata)) + sum(t.size_bytes for t in tensors)


def write_safetensors(
    path: Path,
    tensors: Sequence[TensorSpec],
    blocks: Callable[[TensorSpec], Blocks],
    *,
    metadata: Mapping[str, str],
) -> None:
    """Write one file; it appears at `path` complete, by rename, or not at all.

    Args:
        path: where to; an existing file is replaced.
        tensors: what goes in. Wide elements are put first, so that every tensor is aligned.
        blocks: called once per tensor in file order; its blocks, joined, are the tensor's values in
            row-major order, little endian.
        metadata: the header's `__metadata__`.

    Raises:
        ValueError: the blocks of a tensor hold fewer or more bytes than its shape says.
        OSError: the file cannot be written.
    """
    ordered = _in_file_order(tensors)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(_header(ordered, metadata))
            for tensor in ordered:
                written = sum(file.write(block) for block in blocks(tensor))
                if written != tensor.size_bytes:
                    raise ValueError(
                        f"tensor {tensor.name!r}: {written} bytes for {tensor.size_bytes}"
                    )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _in_file_order(tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    return sorted(tensors, key=lambda tensor: (-_ITEM_BYTES[tensor.dtype], tensor.name))


def _header(ordered: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for tensor in ordered:
        if tensor.name in entries:
            raise ValueError(f"tensor {tensor.name!r} is given twice")
        entries[tensor.name] = {
            "dtype": _STORED_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size_bytes],
        }
        offset += tensor.size_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
