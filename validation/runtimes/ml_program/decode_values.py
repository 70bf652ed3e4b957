"""Types and constants of a program, from their protobuf messages (`MIL.proto`)."""

import struct
from collections.abc import Callable

import numpy as np

from validation.runtimes.ml_program.bits import NUMPY, elements, stored_bytes
from validation.runtimes.ml_program.errors import PackageError
from validation.runtimes.ml_program.program import BlobValue, Immediate, OpaqueValue, Value
from validation.runtimes.ml_program.types import (
    DType,
    OtherType,
    StateType,
    TensorType,
    ValueType,
)
from validation.runtimes.ml_program.wire import BYTES, Field, fields, packed_varints

# DataType of MIL.proto.
DTYPES = {
    1: DType.BOOL,
    2: DType.STRING,
    10: DType.FP16,
    11: DType.FP32,
    12: DType.FP64,
    13: DType.BF16,
    21: DType.INT8,
    22: DType.INT16,
    23: DType.INT32,
    24: DType.INT64,
    25: DType.INT4,
    31: DType.UINT8,
    32: DType.UINT16,
    33: DType.UINT32,
    34: DType.UINT64,
    35: DType.UINT4,
    36: DType.UINT2,
    37: DType.UINT1,
    38: DType.UINT6,
    39: DType.UINT3,
    40: DType.FP8E4M3FN,
    41: DType.FP8E5M2,
}


def value_type(data: memoryview) -> ValueType:
    """A `ValueType`."""
    for field in fields(data):
        if field.number == 1:
            return tensor_type(field.message())
        if field.number == 5:
            return _state_type(field.message())
        return OtherType(kind={2: "list", 3: "tuple", 4: "dictionary"}.get(field.number, "unknown"))
    raise PackageError("a value of the program has no type")


def tensor_type(data: memoryview) -> TensorType:
    """A `TensorType`."""
    dtype, rank = 0, 0
    shape: list[int | None] = []
    variadic = False
    for field in fields(data):
        if field.number == 1:
            dtype = field.unsigned()
        elif field.number == 2:
            rank = field.signed()
        elif field.number == 3:
            size, ends = _dimension(field.message())
            shape.append(size)
            variadic |= ends
    if dtype not in DTYPES:
        raise PackageError(f"data type {dtype} is none of MIL's")
    if variadic or rank < 0:
        return TensorType(dtype=DTYPES[dtype], shape=None)
    if rank != len(shape):
        raise PackageError(f"a tensor type says rank {rank} and lists {len(shape)} dimensions")
    return TensorType(dtype=DTYPES[dtype], shape=tuple(shape))


def value(data: memoryview) -> Value:
    """A `Value`: an immediate tensor, a reference into a weight file, or something opaque."""
    declared: ValueType | None = None
    immediate: memoryview | None = None
    blob: memoryview | None = None
    for field in fields(data):
        if field.number == 2:
            declared = value_type(field.message())
        elif field.number == 3:
            immediate = field.message()
        elif field.number == 5:
            blob = field.message()
    if not isinstance(declared, TensorType):
        return OpaqueValue(kind="unknown" if declared is None else str(declared))
    if blob is not None:
        return _blob(declared, blob)
    if immediate is None:
        raise PackageError(f"a constant of type {declared} has no value")
    return _immediate(declared, immediate)


def _state_type(data: memoryview) -> StateType:
    for field in fields(data):
        if field.number == 1:
            wrapped = value_type(field.message())
            if isinstance(wrapped, TensorType):
                return StateType(tensor=wrapped)
    raise PackageError("a state of the program does not wrap a tensor")


def _dimension(data: memoryview) -> tuple[int | None, bool]:
    for field in fields(data):
        if field.number == 1:
            sizes = [inner.unsigned() for inner in fields(field.message())]
            return (sizes[0] if sizes else 0), False
        if field.number == 2:
            return None, any(inner.flag() for inner in fields(field.message()))
    raise PackageError("a dimension is neither a number nor unknown")


def _blob(declared: TensorType, data: memoryview) -> BlobValue:
    name, offset = "", 0
    for field in fields(data):
        if field.number == 1:
            name = field.text()
        elif field.number == 2:
            offset = field.unsigned()
    return BlobValue(type=declared, file_name=name, offset=offset)


def _immediate(declared: TensorType, data: memoryview) -> Value:
    for field in fields(data):
        if field.number == 1:
            return _tensor(declared, field.message())
        return OpaqueValue(kind={2: "tuple", 3: "list", 4: "dictionary"}.get(field.number, "?"))
    return _fill(declared, np.empty(0, dtype=np.uint8), packed=True)


def _tensor(declared: TensorType, data: memoryview) -> Immediate:
    for field in fields(data):
        body = field.message()
        if field.number == 4:
            texts = tuple(item.text() for item in fields(body))
            return Immediate(type=declared, texts=texts)
        if field.number == 7:
            raw = b"".join(bytes(item.message()) for item in fields(body))
            return _fill(declared, np.frombuffer(raw, dtype=np.uint8), packed=True)
        if field.number not in _LISTS:
            raise PackageError(f"field {field.number} of a tensor value is none of MIL's")
        read, numpy_dtype = _LISTS[field.number]
        values = [element for item in fields(body) for element in read(item)]
        return _fill(declared, np.array(values, dtype=numpy_dtype), packed=False)
    return _fill(declared, np.empty(0, dtype=np.uint8), packed=True)


def _fill(declared: TensorType, flat: np.ndarray, *, packed: bool) -> Immediate:
    """Elements brought into the declared type and shape."""
    if declared.shape is None or None in declared.shape:
        raise PackageError(f"a constant's shape is not fixed: {declared}")
    if declared.dtype not in NUMPY:
        return Immediate(type=declared)  # named as unsupported where it is used
    shape = tuple(size for size in declared.shape if size is not None)
    count = int(np.prod(shape, dtype=np.int64))
    if packed:
        if flat.size != stored_bytes(declared.dtype, count):
            raise PackageError(f"a constant of type {declared} has {flat.size} bytes")
        flat = elements(flat, declared.dtype, count)
    elif flat.size != count:
        raise PackageError(f"a constant of type {declared} has {flat.size} elements")
    return Immediate(type=declared, data=flat.astype(NUMPY[declared.dtype]).reshape(shape))


def _integers(field: Field) -> list[int]:
    return packed_varints(field.message()) if field.wire == BYTES else [field.signed()]


def _numbers(code: str, one: Callable[[Field], float]) -> Callable[[Field], list[float]]:
    def read(field: Field) -> list[float]:
        if field.wire != BYTES:
            return [one(field)]
        return [float(number) for (number,) in struct.iter_unpack(f"<{code}", field.message())]

    return read


# Field of TensorValue: how its list is read, and the type it stands in before the declared one.
_LISTS: dict[int, tuple[Callable[[Field], list[int] | list[float]], str]] = {
    1: (_numbers("f", Field.float32), "<f4"),
    2: (_integers, "<i8"),
    3: (_integers, "<i8"),
    5: (_integers, "<i8"),
    6: (_numbers("d", Field.float64), "<f8"),
}
