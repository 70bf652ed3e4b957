"""The rows of `embedding.safetensors`, mapped into memory. numpy only, and reading of its own.

Source of the format: the safetensors README. Eight bytes, little-endian, give the length of a JSON
header, which says of each tensor its type, shape, and where it lies behind the header. A table is
one tensor of floats, or the codes of a quantized one with what belongs to them: see
`quantized_rows.py`.
"""

import json
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np

from reference.errors import UserError
from validation.runtimes.base import Floats, Ids
from validation.runtimes.quantized_rows import quantized_rows

TENSOR = "embed_tokens"
QUANTIZATION = "quantization"

_DTYPES = {"F16": "<f2", "F32": "<f4", "U8": "u1"}


class EmbeddingTableError(UserError):
    """An embedding table is missing or damaged, or a token is not in it."""


class _Entry(TypedDict):
    """What a header says of a tensor, if it is sound."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Rows(Protocol):
    """A stored table."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def take(self, input_ids: Ids) -> Floats:
        """[...] -> float32 [..., H]; the ids are in range."""
        ...


class EmbeddingTable:
    """Rows [V, H] by token id; only the pages of rows that are asked for are read.

    Raises:
        EmbeddingTableError: the file is missing or is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._rows = _open(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EmbeddingTableError(
                f"{path}: not an embedding table: {error!r}", hint="build the bundle again"
            ) from None

    @property
    def shape(self) -> tuple[int, int]:
        """V tokens, H channels."""
        return self._rows.shape

    def look_up(self, input_ids: Ids) -> Floats:
        """[...] -> float32 [..., H].

        Raises:
            EmbeddingTableError: a token id is negative or V and above.
        """
        rows = self.shape[0]
        if input_ids.size and not (input_ids.min() >= 0 and input_ids.max() < rows):
            raise EmbeddingTableError(
                f"{self.path}: token ids from {input_ids.min()} to {input_ids.max()}, "
                f"the table has 0 to {rows - 1}"
            )
        return self._rows.take(input_ids)


class _FloatRows:
    """Rows that are stored as they are."""

    def __init__(self, stored: np.ndarray) -> None:
        self._stored = stored

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._stored.shape
        return rows, columns

    def take(self, input_ids: Ids) -> Floats:
        return self._stored[input_ids].astype(np.float32)


def _open(path: Path) -> Rows:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length) if length < path.stat().st_size else b"")
    metadata = header.pop("__metadata__", {})
    arrays = {name: _map(path, 8 + length, entry) for name, entry in header.items()}
    if QUANTIZATION in metadata:
        parts = {name.removeprefix(f"{TENSOR}."): array for name, array in arrays.items()}
        return quantized_rows(json.loads(metadata[QUANTIZATION]), parts)
    stored = arrays[TENSOR]
    if stored.ndim != 2 or stored.dtype.kind != "f":
        raise ValueError(f"{TENSOR} is {stored.dtype} of shape {stored.shape}")
    return _FloatRows(stored)


def _map(path: Path, start: int, entry: _Entry) -> np.ndarray:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if end - begin != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} does not fill {end - begin} bytes")
    return np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape)
