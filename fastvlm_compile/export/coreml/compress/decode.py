"""Quantized tensors read back out of a package, by other code than wrote it.

The program and the weight file are read by `validation.runtimes.ml_program`, which shares nothing
with the writer; only what the arrays mean as a `QuantizedTensor` is said here.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.scheme import Affine, Palette, Shape, symmetric_zero_point
from fastvlm_compile.quantize.tensor import Codes, Halves, QuantizedTensor, nothing
from validation.runtimes.ml_program.decode import read_program
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.program import BlobValue, Immediate, Name, Operation
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.weights import Weights

_BITS = {
    DType.UINT1: 1,
    DType.UINT2: 2,
    DType.UINT3: 3,
    DType.UINT4: 4,
    DType.UINT6: 6,
    DType.UINT8: 8,
    DType.INT4: 4,
    DType.INT8: 8,
}
_SIGNED = (DType.INT4, DType.INT8)

_LUT = "constexpr_lut_to_dense"
_BLOCKWISE = "constexpr_blockwise_shift_scale"


def decode_package(package: Path) -> dict[str, QuantizedTensor]:
    """Every compressed constant by its name.

    Group and block sizes are those that the arrays show: 0 where one table, or one scale an output
    channel, serves all; tables that have scales of their own stand once a channel.

    Raises:
        ExportError: one is not of a form that we write, or two functions disagree.
    """
    reader = CompressedReader(package)
    found: dict[str, QuantizedTensor] = {}
    for function in reader.functions:
        for name in reader.names(function):
            tensor = reader.read(function, name)
            if name in found and not same_arrays(found[name], tensor):
                raise ExportError(f"{package.name}: functions hold different {name}")
            found[name] = tensor
    return found


def same_arrays(found: QuantizedTensor, expected: QuantizedTensor) -> bool:
    """Whether two tensors have the same codes, scales, zero points and tables, bit for bit."""
    if found.scheme.bits != expected.scheme.bits or type(found.scheme) is not type(expected.scheme):
        return False
    tables = expected.tables
    if isinstance(expected.scheme, Palette) and expected.scheme.channel_scale:
        tables = np.repeat(tables, expected.shape[0] // len(tables), axis=0)
    return (
        np.array_equal(found.codes, expected.codes)
        and _same_bits(found.scales, expected.scales)
        and np.array_equal(found.zero_points, expected.zero_points)
        and _same_bits(found.tables, tables)
    )


class CompressedReader:
    """The compressed constants of a package, read one at a time."""

    def __init__(self, package: Path) -> None:
        opened = open_package(package)
        self._name = package.name
        self._weights = Weights(opened)
        functions = read_program(opened.spec).functions
        self._operations: dict[str, dict[str, Operation]] = {
            name: {
                operation.outputs[0].name: operation
                for operation in function.block.walk()
                if operation.kind.startswith("constexpr_")
            }
            for name, function in functions.items()
        }

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions."""
        return tuple(self._operations)

    def names(self, function: str) -> list[str]:
        """Constants of a function; those that only feed another one are left out."""
        operations = self._operations[function]
        inner = {
            binding.name
            for operation in operations.values()
            for bindings in operation.inputs.values()
            for binding in bindings
            if isinstance(binding, Name)
        }
        return [name for name in operations if name not in inner]

    def read(self, function: str, name: str) -> QuantizedTensor:
        """One constant.

        Raises:
            ExportError: it is not of a form that we write.
        """
        operation = self._operations[function][name]
        if operation.kind == _BLOCKWISE:
            return self._affine(operation)
        if operation.kind != _LUT:
            raise self._strange(operation, f"is a {operation.kind}")
        (lut,) = operation.inputs["lut"]
        if not isinstance(lut, Name):
            tables, scales = self._halves(operation, "lut"), nothing(np.float16)
        else:
            inner = self._operations[function][lut.name]
            tables, scales = self._halves(inner, "data"), self._halves(inner, "scale")
            if "offset" in inner.inputs or scales.shape != (len(tables), *[1] * (tables.ndim - 1)):
                raise self._strange(inner, f"scales {scales.shape}")
        return self._palette(operation, tables, scales.reshape(-1))

    def _palette(
        self, operation: Operation, tables: Halves, scales: npt.NDArray[np.generic]
    ) -> QuantizedTensor:
        codes, dtype = self._codes(operation, "indices")
        channels, groups = codes.shape[0], tables.shape[0]
        bits = _BITS[dtype]
        expected = (groups, *[1] * (codes.ndim - 1), 2**bits, 1)
        if tables.shape != expected or channels % groups or dtype in _SIGNED:
            raise self._strange(operation, f"tables {tables.shape} of {dtype.value}")
        scheme = Palette(
            bits=bits,  # type: ignore[arg-type]  # one of the values of `_BITS`
            group_size=0 if groups == 1 and not scales.size else channels // groups,
            channel_scale=bool(scales.size),
        )
        return QuantizedTensor(
            scheme=scheme,
            codes=codes,
            scales=scales.astype(np.float16),
            zero_points=np.empty(0, dtype=np.uint8),
            tables=tables.reshape(groups, -1),
        )

    def _affine(self, operation: Operation) -> QuantizedTensor:
        codes, dtype = self._codes(operation, "data")
        scales = self._halves(operation, "scale")
        bits, symmetric = _BITS[dtype], "offset" not in operation.inputs
        if symmetric != (dtype in _SIGNED):
            raise self._strange(operation, f"{dtype.value} and offsets do not go together")
        zero_points = np.empty(0, dtype=np.uint8)
        if symmetric:
            # Two's complement in a byte: the sum goes round, and ends in 0 .. 2^bits - 1.
            codes = codes + np.uint8(symmetric_zero_point(bits))
        else:
            zero_points, other = self._codes(operation, "offset")
            if other is not dtype or zero_points.shape != scales.shape:
                raise self._strange(operation, f"offsets {zero_points.shape} of {other.value}")
            zero_points = zero_points.reshape(scales.shape[:2])
        return QuantizedTensor(
            scheme=self._blocks(operation, codes.shape, scales.shape, bits, symmetric=symmetric),
            codes=codes,
            scales=scales.reshape(scales.shape[:2]),
            zero_points=zero_points,
            tables=np.empty(0, dtype=np.float16),
        )

    def _blocks(
        self, operation: Operation, shape: Shape, scales: Shape, bits: int, *, symmetric: bool
    ) -> Affine:
        ones = (1,) * (len(shape) - 2)
        if len(scales) != len(shape) or scales[0] != shape[0] or scales[2:] != ones:
            raise self._strange(operation, f"scales {scales} of {shape}")
        if shape[1] % scales[1]:
            raise self._strange(operation, f"{scales[1]} blocks of {shape[1]} channels")
        return Affine(
            bits=bits,  # type: ignore[arg-type]  # 4 or 8: no other type is signed or has offsets
            block_size=0 if scales[1] == 1 else shape[1] // scales[1],
            symmetric=symmetric,
        )

    def _codes(self, operation: Operation, parameter: str) -> tuple[Codes, DType]:
        """Elements as they are stored, one a byte, with their type."""
        value = self._value(operation, parameter)
        if value.type.dtype not in _BITS:
            raise self._strange(operation, f"{parameter} of {value.type.dtype.value}")
        return self._weights.array(value).view(np.uint8), value.type.dtype

    def _halves(self, operation: Operation, parameter: str) -> Halves:
        """Float16 values, widened or not."""
        stored = self._weights.array(self._value(operation, parameter))
        if stored.dtype.kind != "f":
            raise self._strange(operation, f"{parameter} of {stored.dtype}")
        halves = stored.astype(np.float16)
        if not np.array_equal(halves.astype(stored.dtype), stored, equal_nan=True):
            raise self._strange(operation, f"{parameter} past float16")
        return halves

    def _value(self, operation: Operation, parameter: str) -> Immediate | BlobValue:
        bindings = operation.inputs.get(parameter, ())
        if len(bindings) != 1 or not isinstance(bindings[0], Immediate | BlobValue):
            raise self._strange(operation, f"{parameter} is not one stored array")
        return bindings[0]

    def _strange(self, operation: Operation, what: str) -> ExportError:
        return ExportError(f"{self._name}: {operation.label}: {what}")


def _same_bits(found: Halves, expected: Halves) -> bool:
    return found.shape == expected.shape and bool(
        np.array_equal(found.view(np.uint16), expected.view(np.uint16))
    )
