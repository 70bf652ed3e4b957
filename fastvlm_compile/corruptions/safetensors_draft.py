"""A safetensors file in memory. Source of the format: the safetensors README."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_compile.corruptions.stored import StoredTensor

_DTYPES = {"F16": "<f2", "F32": "<f4", "U8": "u1", "U32": "<u4"}

Arrays = Mapping[str, np.ndarray]
Find = Callable[[Arrays, dict[str, Any]], Mapping[str, StoredTensor]]
"""Quantized tensors among a file's arrays, given the header."""


class SafetensorsDraft:
    """A `Draft`; its program is the header.

    Args:
        path: of the file.
        find: see `Find`.
    """

    def __init__(self, path: Path, find: Find) -> None:
        data = bytearray(path.read_bytes())
        self._start = 8 + int.from_bytes(data[:8], "little")
        self._data = data
        self.program: dict[str, Any] = json.loads(data[8 : self._start])
        arrays = {
            name: self._view(entry)
            for name, entry in self.program.items()
            if name != "__metadata__" and entry["dtype"] in _DTYPES
        }
        self.tensors = find(arrays, self.program)

    def write(self, path: Path) -> None:
        """See `Draft`; the header is written anew."""
        header = json.dumps(self.program).encode()
        header += b" " * (-len(header) % 8)
        path.write_bytes(len(header).to_bytes(8, "little") + header + self._data[self._start :])

    def _view(self, entry: Mapping[str, Any]) -> np.ndarray:
        begin, end = entry["data_offsets"]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        flat = np.frombuffer(
            self._data,
            dtype=dtype,
            count=(end - begin) // dtype.itemsize,
            offset=self._start + begin,
        )
        return flat.reshape(entry["shape"])


def raw(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, all in a row."""
    return array.reshape(-1).view(np.uint8)
