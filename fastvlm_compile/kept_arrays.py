"""Arrays in a folder: all values in one file, each array at a multiple of 64 bytes.

They are read into memory that is aligned as PyTorch's allocator aligns: where a tensor lies can
change how its products are summed, and a computation that goes on must not differ in a bit.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reference.kept import Arrays

if TYPE_CHECKING:
    import numpy.typing as npt

_VALUES = "arrays.bin"
_TABLE = "arrays.json"
_ALIGNED_BYTES = 64


def write_arrays(folder: Path, arrays: Arrays) -> None:
    """Write arrays of one dimension or more, one after the other."""
    import numpy as np

    table: dict[str, tuple[str, list[int], int]] = {}
    with (folder / _VALUES).open("wb") as file:
        for name, array in arrays.items():
            start = -(-file.tell() // _ALIGNED_BYTES) * _ALIGNED_BYTES
            file.write(bytes(start - file.tell()))
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            table[name] = (array.dtype.str, list(array.shape), start)
    (folder / _TABLE).write_text(json.dumps(table), encoding="utf-8")


def read_arrays(folder: Path) -> Arrays:
    """Read all arrays, into memory of our own."""
    import numpy as np

    table: Mapping[str, tuple[str, list[int], int]] = json.loads((folder / _TABLE).read_bytes())
    path = folder / _VALUES
    values = _aligned(path.stat().st_size)
    with path.open("rb") as file:
        file.readinto(values.data)
    found: dict[str, npt.NDArray[Any]] = {}
    for name, (dtype, shape, start) in table.items():
        count = math.prod(shape)
        block = np.frombuffer(values.data, dtype, count, start) if count else np.empty(0, dtype)
        found[name] = block.reshape(shape)
    return found


def _aligned(size_bytes: int) -> "npt.NDArray[Any]":
    import numpy as np

    block = np.empty(size_bytes + _ALIGNED_BYTES, np.uint8)
    start = -block.ctypes.data % _ALIGNED_BYTES
    return block[start : start + size_bytes]
