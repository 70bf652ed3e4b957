"""Weights from their compressed forms (`constexpr_*` ops of iOS 16 and iOS 18), in numpy.

Floating-point results are float32 and not rounded to the declared type: the caller rounds when
it runs with rounding. Formulas: coremltools' op documentation, iOS16 `constexpr_ops` and iOS18
`compression`; the code is our own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from validation.runtimes.ml_program.bits import unpack

Arrays = Mapping[str, np.ndarray]
Decompress = Callable[[Arrays], tuple[np.ndarray, ...]]

_VALUES_AT_ONCE = 2**22
"""Elements that are decompressed together, with some copies of them on the way."""


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
    data, scale, offset = given["data"], given["scale"], given.get("offset")
    values = np.empty(data.shape, dtype=np.float32)
    groups = [scale, *(() if offset is None else (offset,))]
    for rows in _slabs(data.shape, groups):
        piece = data[rows].astype(np.float32)
        if offset is not None:
            piece = piece - _of_slab(offset, rows, data.shape)
        values[rows] = piece * _of_slab(scale, rows, data.shape)
    return (values,)


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
    table = _widen(lut).reshape(-1, width)
    found = np.empty((*indices.shape, width), dtype=table.dtype)
    numbers = _group_numbers(groups, indices.shape)
    for rows in _slabs(indices.shape, ()):
        number = sum(each[rows] if len(each) > 1 else each for each in numbers)
        found[rows] = table[indices[rows] + number * entries]
    if width == 1:
        return np.asarray(found[..., 0])
    vector_axis %= indices.ndim
    shape = list(indices.shape)
    shape[vector_axis] *= width
    return np.moveaxis(found, -1, vector_axis + 1).reshape(shape)


def _group_numbers(groups: Sequence[int], shape: tuple[int, ...]) -> list[np.ndarray]:
    """What each axis adds to the flat number of an element's group, to be broadcast."""
    numbers = [np.zeros([1] * len(shape), dtype=np.int64)]
    stride = 1
    for axis, (count, size) in reversed(list(enumerate(zip(groups, shape, strict=True)))):
        if count > 1:
            number = np.arange(size, dtype=np.int64) // (size // count) * stride
            numbers.append(number.reshape([size if i == axis else 1 for i in range(len(shape))]))
        stride *= count
    return numbers


def _slabs(shape: tuple[int, ...], grouped: Sequence[np.ndarray]) -> Iterator[slice]:
    """Runs of rows small enough for copies not to matter; none cuts a group of rows.

    Args:
        shape: of the result; at least one axis.
        grouped: values that rows share, one for so many of them as there are fewer.

    Raises:
        ValueError: groups do not divide the rows.
    """
    size = shape[0]
    step = max(1, _VALUES_AT_ONCE // max(1, math.prod(shape[1:])))
    together = math.lcm(*(_rows_of_group(values, size) for values in grouped))
    step = max(1, step // together) * together
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _rows_of_group(values: np.ndarray, size: int) -> int:
    if not values.shape[0] or size % values.shape[0]:
        raise ValueError(f"{values.shape[0]} groups of {size} rows")
    # One value for all rows cuts nowhere.
    return 1 if values.shape[0] == 1 else size // values.shape[0]


def _of_slab(values: np.ndarray, rows: slice, shape: tuple[int, ...]) -> np.ndarray:
    """The blocks' values of a run of rows, in float32, as `_blocks` spreads them."""
    if values.shape[0] > 1:
        group = shape[0] // values.shape[0]
        values = values[rows.start // group : rows.stop // group]
    return _blocks(values.astype(np.float32), (rows.stop - rows.start, *shape[1:]))
