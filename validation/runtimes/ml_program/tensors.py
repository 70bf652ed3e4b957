"""How values are held in torch while a program runs."""

import numpy as np
import torch
from torch import Tensor

from validation.runtimes.ml_program.types import DType

# fp16 values are held in float32, rounded or not; integers that torch lacks take the next wider.
STORAGE: dict[DType, torch.dtype] = {
    DType.BOOL: torch.bool,
    DType.FP16: torch.float32,
    DType.FP32: torch.float32,
    DType.INT8: torch.int8,
    DType.INT16: torch.int16,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.UINT8: torch.uint8,
    DType.UINT16: torch.int32,
    DType.UINT32: torch.int64,
    # Sub-byte integers only occur inside compressed constants, one element per byte.
    DType.INT4: torch.int8,
    DType.UINT1: torch.uint8,
    DType.UINT2: torch.uint8,
    DType.UINT3: torch.uint8,
    DType.UINT4: torch.uint8,
    DType.UINT6: torch.uint8,
}


def from_numpy(array: np.ndarray, dtype: DType) -> Tensor:
    """A tensor of `dtype`'s storage; shares memory where the array already has that form."""
    if dtype is DType.UINT16:
        array = array.astype(np.int32)
    elif dtype is DType.UINT32:
        array = array.astype(np.int64)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy()
    return torch.from_numpy(array).to(STORAGE[dtype])


def to_numpy(tensor: Tensor, dtype: DType, *, rounded: bool) -> np.ndarray:
    """A value for the outside: its declared type, but fp16 stays float32 unless it was rounded."""
    array = tensor.detach().cpu().contiguous().numpy()
    if dtype is DType.FP16:
        return array.astype(np.float16) if rounded else array.copy()
    if dtype is DType.UINT16:
        return array.astype(np.uint16)
    if dtype is DType.UINT32:
        return array.astype(np.uint32)
    return array.copy()


def round_to_fp16(tensor: Tensor) -> Tensor:
    """The nearest fp16 values, held in float32; beyond fp16's range they become infinite."""
    return tensor.half().float()


def store_as(tensor: Tensor, dtype: DType) -> Tensor:
    """A value converted to the way `dtype` is held; unsigned 16-bit values wrap."""
    if dtype is DType.UINT16:
        return tensor.to(torch.int32) & 0xFFFF
    return tensor.to(STORAGE[dtype])
