"""Constants of a program as expressions: stored values, and what `constexpr_*` ops make of them."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from validation.runtimes.ml_program import decompress
from validation.runtimes.ml_program.errors import PackageError
from validation.runtimes.ml_program.program import BlobValue, Immediate, OpaqueValue
from validation.runtimes.ml_program.types import DType, TensorType
from validation.runtimes.ml_program.weights import Weights

_DATA = frozenset((DType.INT4, DType.UINT4, DType.INT8, DType.UINT8, DType.FP16, DType.FP32))
_INDICES = frozenset((DType.UINT1, DType.UINT2, DType.UINT3, DType.UINT4, DType.UINT6, DType.UINT8))
_ENTRIES = frozenset((DType.INT8, DType.UINT8, DType.FP16, DType.FP32))
_FLOATS = frozenset((DType.FP16, DType.FP32))
_BYTES = frozenset((DType.INT8, DType.UINT8))


@dataclass(frozen=True, kw_only=True)
class Compression:
    """One `constexpr_*` op.

    Attributes:
        since: first opset (5 = iOS 15 .. 8 = iOS 18) in which it reads so.
        required, optional: parameters and their element types.
        label: what reports call it.
        run: how it is undone.
    """

    since: int
    label: str
    required: Mapping[str, frozenset[DType]]
    optional: Mapping[str, frozenset[DType]]
    run: decompress.Decompress


_MASK = frozenset((DType.UINT1,))
_SHAPE = frozenset((DType.UINT32, DType.INT32))
_AXIS = frozenset((DType.INT32,))

COMPRESSIONS: dict[str, tuple[Compression, ...]] = {
    "constexpr_affine_dequantize": (
        Compression(
            since=6,
            label="affine",
            required={
                "quantized_data": _BYTES,
                "zero_point": _BYTES | _FLOATS,
                "scale": _FLOATS,
                "axis": _AXIS,
            },
            optional={},
            run=decompress.affine_dequantize,
        ),
    ),
    "constexpr_blockwise_shift_scale": (
        Compression(
            since=8,
            label="blockwise shift/scale",
            required={"data": _DATA, "scale": _FLOATS},
            optional={"offset": _DATA},
            run=decompress.blockwise_shift_scale,
        ),
    ),
    "constexpr_lut_to_dense": (
        Compression(
            since=6,
            label="palette",
            required={"indices": frozenset((DType.UINT8,)), "lut": _ENTRIES, "shape": _SHAPE},
            optional={},
            run=decompress.lut_to_dense_flat,
        ),
        Compression(
            since=8,
            label="palette",
            required={"indices": _INDICES, "lut": _ENTRIES},
            optional={"vector_axis": _AXIS},
            run=decompress.lut_to_dense,
        ),
    ),
    "constexpr_sparse_to_dense": (
        Compression(
            since=6,
            label="sparse",
            required={
                "nonzero_data": _ENTRIES,
                "mask": frozenset((DType.UINT8,)),
                "shape": _SHAPE,
            },
            optional={},
            run=decompress.sparse_to_dense_flat,
        ),
        Compression(
            since=8,
            label="sparse",
            required={"nonzero_data": _DATA, "mask": _MASK},
            optional={},
            run=decompress.sparse_to_dense,
        ),
    ),
    "constexpr_lut_to_sparse": (
        Compression(
            since=8,
            label="sparse palette",
            required={"indices_mask": _MASK, "indices_nonzero_data": _INDICES, "lut": _ENTRIES},
            optional={"vector_axis": _AXIS},
            run=decompress.lut_to_sparse,
        ),
    ),
    "constexpr_sparse_blockwise_shift_scale": (
        Compression(
            since=8,
            label="sparse blockwise shift/scale",
            required={"data_mask": _MASK, "nonzero_data": _DATA, "scale": _FLOATS},
            optional={"offset": _DATA},
            run=decompress.sparse_blockwise_shift_scale,
        ),
    ),
    "constexpr_cast": (
        Compression(
            since=6,
            label="fp16 cast to fp32",
            required={
                "source_val": frozenset((DType.FP16,)),
                "output_dtype": frozenset((DType.STRING,)),
            },
            optional={},
            run=decompress.cast,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A constant as the package holds it."""

    value: Immediate | BlobValue

    @property
    def type(self) -> TensorType:
        """Its declared type."""
        return self.value.type

    @property
    def key(self) -> Hashable:
        """Equal for equal constants of one package, whatever function refers to them."""
        if isinstance(self.value, BlobValue):
            return (self.value.file_name, self.value.offset)
        return self.value  # compared by identity


@dataclass(frozen=True, kw_only=True, eq=False)
class Derived:
    """One result of a `constexpr_*` op."""

    compression: Compression
    args: Mapping[str, "Constant"]
    index: int
    type: TensorType

    @cached_property
    def key(self) -> Hashable:
        """Equal for equal constants of one package, whatever function refers to them."""
        args = tuple((name, arg.key) for name, arg in sorted(self.args.items()))
        return (self.compression.label, self.compression.since, self.index, args)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opaque:
    """A list, tuple or dictionary constant: nothing that is executed may use it."""

    value: OpaqueValue


Constant = Stored | Derived


def evaluate(constant: Constant, weights: Weights) -> np.ndarray:
    """A constant's elements in its declared shape.

    Returns:
        Stored floats in their stored type, derived ones in float32 (not rounded), integers in
        their own type, sub-byte integers one per byte.

    Raises:
        PackageError: the stored parts do not fit together.
    """
    return _evaluate(constant, weights, {})


def _evaluate(
    constant: Constant, weights: Weights, made: dict[int, tuple[np.ndarray, ...]]
) -> np.ndarray:
    """`made` holds what ops of several results gave, by the identity of their shared arguments."""
    if isinstance(constant, Stored):
        return weights.array(constant.value)
    if id(constant.args) not in made:
        args = {
            name: _evaluate(arg, weights, made)
            for name, arg in constant.args.items()
            if arg.type.dtype is not DType.STRING
        }
        made[id(constant.args)] = _undo(constant, args, weights)
    found = made[id(constant.args)][constant.index]
    if not constant.type.admits(found.shape):
        raise PackageError(
            f"{weights.path}: a constant of type {constant.type} decompresses to {found.shape}"
        )
    return found


def _undo(
    constant: Derived, args: Mapping[str, np.ndarray], weights: Weights
) -> tuple[np.ndarray, ...]:
    try:
        return constant.compression.run(args)
    except (ValueError, IndexError) as error:
        raise PackageError(
            f"{weights.path}: {constant.compression.label} constant of type {constant.type}"
            f" does not decompress: {error}"
        ) from error
