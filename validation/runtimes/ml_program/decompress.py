"""Weights from their compressed forms (`constexpr_*` ops of iOS 16 and iOS 18), in numpy.

Floating-point results are float32 and not rounded to the declared type: the caller rounds when
it runs with rounding. Formulas: coremltools' op documentation, iOS16 `constexpr_ops` and iOS18
`compression`; the code is our own.
"""

from collections.abc import Callable, Mapping

import numpy as np

from validation.runtimes.ml_program.bits import unpack

Arrays = Mapping[str, np.ndarray]
Decompress = Callable[[Arrays], tuple[np.ndarray, ...]]


def affine_dequantize(given: Arrays) -> tuple[np.ndarray, ...]:
    """`scale * (quantized_data - zero_point)`, scale and zero point scalars or along `axis`."""
    data = given["quantized_data"]
    axis = int(given["axis"])

    def along_axis(vector: np.ndarray) -> np.ndarray:
        shape = [1] * data.ndim
        if vector.ndim:
            shape[axis] = vector.size
        return vector.astype(np.float32).reshape(shape)

    shifted = data.astype(np.float32) - along_axis(given["zero_point"])
    return (shifted * along_axis(given["scale"]),)


def blockwise_shift_scale(given: Arrays) -> tuple[np.ndarray, ...]:
    """`scale * (data - offset)`, one scale and offset per block of elements."""
    data = given["data"].astype(np.float32)
    offset = given.get("offset")
    if offset is not None:
        data = data - _blocks(offset.astype(np.float32), data.shape)
    return (data * _blocks(given["scale"].astype(np.float32), data.shape),)


def lut_to_dense_flat(given: Arrays) -> tuple[np.ndarray, ...]:
    """iOS 16: one table; the indices are packed bits and `shape` says what they fill."""
    lut = given["lut"]
    shape = tuple(int(size) for size in given["shape"])
    bits = int(lut.size).bit_length() - 1
    indices = unpack(given["indices"].view(np.uint8), bits, int(np.prod(shape, dtype=np.int64)))
    return (_widen(lut)[indices].reshape(shape),)


def lut_to_dense(given: Arrays) -> tuple[np.ndarray, ...]:
    """iOS 18: a table per group of elements, each entry a scalar or a vector along an axis."""
    return (_look_up(given["indices"], given["lut"], _vector_axis(given)),)


def sparse_to_dense_flat(given: Arrays) -> tuple[np.ndarray, ...]:
    """iOS 16: the mask is packed bits and `shape` says what they fill."""
    shape = tuple(int(size) for size in given["shape"])
    mask = unpack(given["mask"].view(np.uint8), 1, int(np.prod(shape, dtype=np.int64)))
    return (_spread(given["nonzero_data"], mask.reshape(shape)),)


def sparse_to_dense(given: Arrays) -> tuple[np.ndarray, ...]:
    """iOS 18: the mask has the shape of the result."""
    return (_spread(given["nonzero_data"], given["mask"]),)


def lut_to_sparse(given: Arrays) -> tuple[np.ndarray, ...]:
    """The mask and the kept elements of a pruned tensor whose kept elements are palettized."""
    mask, axis, lut = given["indices_mask"], _vector_axis(given), given["lut"]
    dense = _look_up(_spread(given["indices_nonzero_data"], mask), lut, axis)
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis=axis)
    return mask, dense[mask != 0]


def sparse_blockwise_shift_scale(given: Arrays) -> tuple[np.ndarray, ...]:
    """The mask and the kept elements of a pruned tensor whose kept elements are quantized."""
    mask = given["data_mask"]
    dense = blockwise_shift_scale({**given, "data": _spread(given["nonzero_data"], mask)})[0]
    return mask, dense[mask != 0]


def cast(given: Arrays) -> tuple[np.ndarray, ...]:
    """fp16 to fp32."""
    return (given["source_val"].astype(np.float32),)


def _vector_axis(given: Arrays) -> int:
    return int(given["vector_axis"]) if "vector_axis" in given else 0


def _widen(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Elements laid out where the mask is set, zero elsewhere."""
    values = _widen(values)
    dense = np.zeros(mask.shape, dtype=values.dtype)
    dense[mask != 0] = values
    return dense


def _blocks(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value per block, repeated to the full shape where broadcasting alone does not do it."""
    for axis, (count, size) in enumerate(zip(values.shape, shape, strict=True)):
        if 1 < count < size:
            values = np.repeat(values, size // count, axis=axis)
    return values


def _look_up(indices: np.ndarray, lut: np.ndarray, vector_axis: int) -> np.ndarray:
    """Table entries by index; the table of an element is that of its group."""
    *groups, entries, width = lut.shape
    # The flat number of each element's group, built from one small range per axis.
    row: np.ndarray | int = 0
    for axis, (count, size) in enumerate(zip(groups, indices.shape, strict=True)):
        if count == 1:
            continue
        number = np.arange(size, dtype=np.int64) // (size // count)
        column = number.reshape([size if i == axis else 1 for i in range(indices.ndim)])
        row = row * count + column
    table = _widen(lut).reshape(-1, width)
    found = table[indices + row * entries]
    if width == 1:
        return np.asarray(found[..., 0])
    vector_axis %= indices.ndim
    shape = list(indices.shape)
    shape[vector_axis] *= width
    return np.moveaxis(found, -1, vector_axis + 1).reshape(shape)
