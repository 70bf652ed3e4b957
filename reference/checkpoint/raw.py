"""Tensors as the bytes they are stored as, read in blocks of bounded size, without PyTorch.

For what does not compute with values: comparing, copying and digesting them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reference.checkpoint.storage import TensorInfo, load_pickled
from reference.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_BYTES = 16 * 2**20


class RawReader:
    """Reads the tensors of one checkpoint directory; headers are read once and kept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._extents: dict[str, dict[str, tuple[int, int]]] = {}
        self._pickled: dict[str, Mapping[str, Tensor]] = {}

    def blocks(self, info: TensorInfo) -> Iterator[bytes]:
        """The tensor's values in row-major order, little endian, a block at a time.

        Raises:
            CheckpointError: the file has become shorter since it was scanned.
        """
        path = self._directory / info.file
        if path.suffix == ".bin":
            if path.name not in self._pickled:
                self._pickled[path.name] = load_pickled(path)
            yield from _blocks_of(self._pickled[path.name][info.stored_name])
            return
        start, stop = self._extent(path, info.stored_name)
        with path.open("rb") as file:
            file.seek(start)
            left = stop - start
            while left:
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise CheckpointError(f"{path}: ends inside tensor {info.stored_name!r}")
                left -= len(block)
                yield block

    def equal(self, one: TensorInfo, other: TensorInfo) -> bool:
        """Whether two tensors hold the same values, bit for bit."""
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        # Equal shapes and dtypes are cut into equal blocks.
        return all(a == b for a, b in zip(self.blocks(one), self.blocks(other), strict=True))

    def _extent(self, path: Path, stored_name: str) -> tuple[int, int]:
        """First byte of the tensor in its file, and the byte after its last."""
        if path.name not in self._extents:
            self._extents[path.name] = _read_extents(path)
        return self._extents[path.name][stored_name]


def _read_extents(path: Path) -> dict[str, tuple[int, int]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = 8 + length
    return {
        name: (data + entry["data_offsets"][0], data + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _blocks_of(tensor: "Tensor") -> Iterator[bytes]:
    import torch

    assert sys.byteorder == "little", "torch keeps tensors in the machine's byte order"
    flat = tensor.contiguous().reshape(-1)
    step = max(1, _BLOCK_BYTES // flat.element_size())
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].view(torch.uint8).numpy().tobytes()
