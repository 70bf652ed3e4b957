"""An ML Program in memory: functions of blocks of operations (`MIL.proto`), fully typed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from validation.runtimes.ml_program.features import Feature
from validation.runtimes.ml_program.types import TensorType, ValueType


@dataclass(frozen=True, kw_only=True, eq=False)
class Immediate:
    """A constant stored inside the spec.

    Attributes:
        type: its declared type.
        data: the elements in the declared shape (sub-byte integers one per byte); None for text.
        texts: the strings of a STRING tensor.
    """

    type: TensorType
    data: np.ndarray | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlobValue:
    """A constant stored in a weight file: `offset` is that of its record."""

    type: TensorType
    file_name: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class OpaqueValue:
    """A list, tuple or dictionary constant: named in errors only."""

    kind: str


Value = Immediate | BlobValue | OpaqueValue


@dataclass(frozen=True, kw_only=True)
class Name:
    """A reference to a value of the enclosing scopes."""

    name: str


Binding = Name | Value


@dataclass(frozen=True, kw_only=True)
class NamedType:
    """A named and typed value: a parameter of a function or block, or a result of an op."""

    name: str
    type: ValueType


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation.

    Attributes:
        kind: the op type, such as "conv".
        inputs: parameter name to its bindings (several for `concat.values` and the like).
        attributes: constants beside the inputs: `const.val`, iOS 16 `constexpr_*` parameters.
        outputs: the values it defines.
        blocks: nested blocks of control flow.
    """

    kind: str
    inputs: Mapping[str, tuple[Binding, ...]]
    attributes: Mapping[str, Value]
    outputs: tuple[NamedType, ...]
    blocks: tuple["Block", ...] = ()

    @property
    def label(self) -> str:
        """What messages call it: its type and what it defines."""
        names = ", ".join(output.name for output in self.outputs)
        return f"{self.kind} ({names})" if names else self.kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Operations in order, with the names of what comes out."""

    inputs: tuple[NamedType, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    def walk(self) -> Iterator[Operation]:
        """All operations, those of nested blocks after their owner."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True, kw_only=True, eq=False)
class Function:
    """A function of the program with what the package's description says of its interface.

    Attributes:
        opset: such as "CoreML8" (iOS 18).
        parameters: the program's own typed inputs, states included.
    """

    name: str
    opset: str
    parameters: tuple[NamedType, ...]
    block: Block
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """All functions of a package.

    Attributes:
        specification_version: 6 (iOS 15) .. 9 (iOS 18), 10 (iOS 26).
    """

    specification_version: int
    functions: Mapping[str, Function] = field(repr=False)
    default_function: str
