"""A package in memory that can be damaged: the protobuf messages, and `weight.bin` as bytes.

The message classes are coremltools'; blobs are found by the layout of MILBlob's `StorageFormat.hpp`
(see `validation/runtimes/ml_program/blob.py`).
"""

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_RECORD = struct.Struct("<IIQQ")
_BLOB_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f2"),
    2: np.dtype("<f4"),
    3: np.dtype("u1"),
    4: np.dtype("i1"),
    6: np.dtype("<i2"),
    7: np.dtype("<u2"),
    11: np.dtype("u1"),  # four-bit indices: two of them in a byte
    14: np.dtype("<i4"),
}

Message = Any
"""A protobuf message: its classes are made at run time."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """An operation in a function.

    Attributes:
        function: its name.
        op: the message; changes to it are changes of the program.
    """

    function: str
    op: Message

    @property
    def name(self) -> str:
        """`decode/normed_1`, or `layer_norm` where the package has one function."""
        output = self.op.outputs[0].name if self.op.outputs else self.op.type
        return output if self.function == "main" else f"{self.function}/{output}"


class Draft:
    """A program and its weights.

    Args:
        spec: bytes of `model.mlmodel`.
        weights: bytes of `weight.bin`.
    """

    def __init__(self, spec: bytes, weights: bytes) -> None:
        with quiet():
            from coremltools.proto import Model_pb2

        self.model: Message = Model_pb2.Model.FromString(spec)
        self.weights = bytearray(weights)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions, sorted."""
        return tuple(sorted(self.model.mlProgram.functions))

    def block(self, function: str) -> Message:
        """The body of a function."""
        found = self.model.mlProgram.functions[function]
        return found.block_specializations[found.opset]

    def sites(self, *kinds: str) -> Iterator[Site]:
        """All operations of some kinds, function by function."""
        for function in self.functions:
            for op in self.block(function).operations:
                if op.type in kinds:
                    yield Site(function=function, op=op)

    def site(self, function: str, output: str) -> Site:
        """The operation that defines a value."""
        for op in self.block(function).operations:
            if op.outputs and op.outputs[0].name == output:
                return Site(function=function, op=op)
        raise KeyError(f"{function}/{output}")

    def again(self, site: Site) -> Site:
        """The same operation as in another draft of the package."""
        return self.site(site.function, site.op.outputs[0].name)

    def constant(self, function: str, name: str) -> Message | None:
        """The value of a constant by its name; None for what is computed."""
        for op in self.block(function).operations:
            if op.type == "const" and op.outputs[0].name == name:
                return op.attributes["val"]
        return None

    def parameter(self, site: Site, name: str) -> Message | None:
        """The constant value of an op's parameter; None if it is computed or not given."""
        if name not in site.op.inputs:
            return None
        binding = site.op.inputs[name].arguments[0]
        return (
            binding.value
            if binding.HasField("value")
            else self.constant(site.function, binding.name)
        )

    def private(self, site: Site, name: str) -> Message:
        """As `parameter`, now of this op alone: others that share the constant keep theirs."""
        value = self.parameter(site, name)
        assert value is not None, f"{site.name} has no constant {name}"
        binding = site.op.inputs[name].arguments[0]
        if not binding.HasField("value"):
            copied = type(value)()
            copied.CopyFrom(value)
            binding.value.CopyFrom(copied)
        return binding.value

    def blobs(self) -> dict[str, Message]:
        """Stored constants by name, each blob once."""
        found: dict[str, Message] = {}
        seen: set[int] = set()
        for site in self.sites("const"):
            value = site.op.attributes["val"]
            if value.HasField("blobFileValue") and value.blobFileValue.offset not in seen:
                seen.add(value.blobFileValue.offset)
                found[site.op.outputs[0].name] = value
        return found

    def array(self, value: Message) -> np.ndarray:
        """The elements of a stored constant in its shape; writing to it changes the weights."""
        _, code, size, start = _RECORD.unpack_from(self.weights, value.blobFileValue.offset)
        dtype = _BLOB_TYPES[code]
        flat = np.frombuffer(self.weights, dtype=dtype, count=size // dtype.itemsize, offset=start)
        shape = tensor_shape(value)
        return flat.reshape(shape) if flat.size == int(np.prod(shape)) else flat


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps coremltools' warnings at import and its progress bars off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def tensor_shape(value: Message) -> tuple[int, ...]:
    """The declared shape of a constant."""
    return tuple(int(each.constant.size) for each in value.type.tensorType.dimensions)


def numbers(value: Message) -> list[float]:
    """The elements of a constant that is kept in the program itself."""
    kept = value.immediateValue.tensor
    field = kept.WhichOneof("value")
    if field == "bytes":
        return [float(each) for each in np.frombuffer(kept.bytes.values, dtype=_bytes_type(value))]
    return list(getattr(kept, field).values) if field else []


def set_numbers(value: Message, new: list[float]) -> None:
    """Replaces them, in the type they are kept in."""
    kept = value.immediateValue.tensor
    field = kept.WhichOneof("value")
    if field == "bytes":
        kept.bytes.values = np.array(new, dtype=_bytes_type(value)).tobytes()
        return
    cast = {"floats": float, "doubles": float, "bools": bool}.get(field, int)
    del getattr(kept, field).values[:]
    getattr(kept, field).values.extend(cast(each) for each in new)


def text(value: Message) -> str:
    """A constant that is one string."""
    return str(value.immediateValue.tensor.strings.values[0])


def set_text(value: Message, new: str) -> None:
    """Replaces it."""
    value.immediateValue.tensor.strings.values[0] = new


def argument(site: Site, name: str, place: int = 0) -> str:
    """Which value an op takes; empty for an inline constant."""
    return str(site.op.inputs[name].arguments[place].name)


def set_argument(site: Site, name: str, new: str) -> None:
    """Makes it take another."""
    site.op.inputs[name].arguments[0].name = new


def swap_arguments(site: Site, first: str, second: str) -> None:
    """Two parameters of an op change places."""
    one, other = argument(site, first), argument(site, second)
    set_argument(site, first, other)
    set_argument(site, second, one)


def output_type(site: Site, place: int = 0) -> str:
    """The declared type of a result, as text to compare with."""
    return str(site.op.outputs[place].type)


def read_draft(package: Path) -> Draft:
    """The draft of a saved package."""
    model = package / "Data" / "com.apple.CoreML"
    return Draft(
        (model / "model.mlmodel").read_bytes(), (model / "weights" / "weight.bin").read_bytes()
    )


def _bytes_type(value: Message) -> str:
    """numpy's name for a constant that is kept as bytes (`DataType` of `MIL.proto`)."""
    return {10: "<f2", 22: "<i2", 32: "<u2"}.get(int(value.type.tensorType.dataType), "<i2")
