"""The rows of `embedding.safetensors`, mapped into memory. numpy only, and reading of its own.

Source of the format: the safetensors README. Eight bytes, little-endian, give the length of a JSON
header, which says of each tensor its type, shape, and where it lies behind the header.
"""

import json
from pathlib import Path

import numpy as np

from reference.errors import UserError
from validation.runtimes.base import Floats, Ids

TENSOR = "embed_tokens"

_DTYPES = {"F16": "<f2", "F32": "<f4"}


class EmbeddingTableError(UserError):
    """An embedding table is missing or damaged, or a token is not in it."""


class EmbeddingTable:
    """Rows [V, H] by token id; only the pages of rows that are asked for are read.

    Raises:
        EmbeddingTableError: the file is missing or is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._rows = _map(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EmbeddingTableError(
                f"{path}: not an embedding table: {error!r}", hint="build the bundle again"
            ) from None

    @property
    def shape(self) -> tuple[int, int]:
        """V tokens, H channels."""
        rows, columns = self._rows.shape
        return rows, columns

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
        return self._rows[input_ids].astype(np.float32)


def _map(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length) if length < path.stat().st_size else b"")
    entry = header[TENSOR]
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if len(shape) != 2 or end - begin != shape[0] * shape[1] * dtype.itemsize:
        raise ValueError(f"{TENSOR} of shape {shape} does not fill {end - begin} bytes")
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + length + begin, shape=shape)
