"""Types of the values in an ML Program (`MIL.proto`: DataType, ValueType)."""

from dataclasses import dataclass
from enum import Enum


class DType(Enum):
    """Element types; the values are the names that MIL itself uses (`cast` to "fp16")."""

    BOOL = "bool"
    STRING = "string"
    FP16 = "fp16"
    FP32 = "fp32"
    FP64 = "fp64"
    BF16 = "bf16"
    FP8E4M3FN = "fp8e4m3fn"
    FP8E5M2 = "fp8e5m2"
    INT4 = "int4"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT1 = "uint1"
    UINT2 = "uint2"
    UINT3 = "uint3"
    UINT4 = "uint4"
    UINT6 = "uint6"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"

    @property
    def bits(self) -> int:
        """Stored width of one element; 0 for strings."""
        return _BITS[self]

    @property
    def is_float(self) -> bool:
        """Whether elements are floating point."""
        return self in _FLOATS


_BITS = {
    DType.BOOL: 8,
    DType.STRING: 0,
    DType.FP16: 16,
    DType.FP32: 32,
    DType.FP64: 64,
    DType.BF16: 16,
    DType.FP8E4M3FN: 8,
    DType.FP8E5M2: 8,
    DType.INT4: 4,
    DType.INT8: 8,
    DType.INT16: 16,
    DType.INT32: 32,
    DType.INT64: 64,
    DType.UINT1: 1,
    DType.UINT2: 2,
    DType.UINT3: 3,
    DType.UINT4: 4,
    DType.UINT6: 6,
    DType.UINT8: 8,
    DType.UINT16: 16,
    DType.UINT32: 32,
    DType.UINT64: 64,
}
_FLOATS = frozenset(
    (DType.FP16, DType.FP32, DType.FP64, DType.BF16, DType.FP8E4M3FN, DType.FP8E5M2)
)


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """A tensor's element type and shape; `None` is a dimension known only at run time.

    `shape` is None where the rank itself is unknown.
    """

    dtype: DType
    shape: tuple[int | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, None where unknown."""
        return None if self.shape is None else len(self.shape)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of this shape is one of this type."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            declared is None or declared == size
            for declared, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        dims = (
            "*"
            if self.shape is None
            else ", ".join("?" if d is None else str(d) for d in self.shape)
        )
        return f"{self.dtype.value}[{dims}]"


@dataclass(frozen=True, kw_only=True)
class StateType:
    """A state: a tensor that outlives a run."""

    tensor: TensorType

    def __str__(self) -> str:
        return f"state<{self.tensor}>"


@dataclass(frozen=True, kw_only=True)
class OtherType:
    """A list, tuple or dictionary: read, named in errors, never executed."""

    kind: str

    def __str__(self) -> str:
        return self.kind


ValueType = TensorType | StateType | OtherType
