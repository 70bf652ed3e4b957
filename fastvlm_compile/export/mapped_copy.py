"""Float32 copies of weights in a scratch file, mapped: converters take them for ordinary tensors.

The system can drop mapped pages that nobody wrote to, so they take no memory of their own, while
copies in memory would take twice that of a 16-bit checkpoint.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64
_VALUES_AT_ONCE = 2**22


def mapped_copies(tensors: Iterable[tuple[str, Tensor]], scratch: Path) -> Mapping[str, Tensor]:
    """The tensors in float32, each over its part of a new file.

    Args:
        tensors: names and floating-point tensors; read one at a time, in pieces.
        scratch: the file; it may be deleted at once, its bytes live as long as the copies do.

    Returns:
        Contiguous tensors in the order given. Writing to one changes it, not the file.
    """
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    with scratch.open("wb") as file:
        for name, tensor in tensors:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places[name] = (file.tell(), tuple(tensor.shape))
            flat = tensor.reshape(-1)
            for start in range(0, flat.numel(), _VALUES_AT_ONCE):
                piece = flat[start : start + _VALUES_AT_ONCE].to(torch.float32)
                file.write(piece.numpy().data)
    return {name: _mapped(scratch, offset, shape) for name, (offset, shape) in places.items()}


def _mapped(scratch: Path, offset: int, shape: tuple[int, ...]) -> Tensor:
    if 0 in shape:
        return torch.empty(shape)
    # "c": private pages that may be written, as torch wants of arrays that it shares.
    values = np.memmap(scratch, dtype=np.float32, mode="c", offset=offset, shape=shape)
    return torch.from_numpy(values)
