"""Constants of a program's protobuf messages: found, and replaced by constant expressions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.compress.encode import Constexpr
from fastvlm_compile.export.errors import ExportError

if TYPE_CHECKING:
    from coremltools.proto.MIL_pb2 import Block, Operation, Value, ValueType
    from coremltools.proto.Model_pb2 import Model

    from fastvlm_compile.export.coreml.compress.elements import Element

OPSET = "CoreML8"
"""iOS 18: the first whose constant expressions take blocks and groups."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A constant of a function that lies in the weight file.

    Attributes:
        function: whose it is.
        name: of the constant.
        operation: the `const`.
    """

    function: str
    name: str
    operation: "Operation"

    @property
    def value(self) -> "Value":
        """Type, file and offset."""
        return self.operation.attributes["val"]

    @property
    def offset(self) -> int:
        """Of its record in the weight file."""
        return int(self.value.blobFileValue.offset)

    @property
    def shape(self) -> tuple[int, ...]:
        """As declared."""
        return tuple(int(each.constant.size) for each in _tensor(self.value.type).dimensions)

    @property
    def element(self) -> str:
        """MIL's name for the declared type of its elements."""
        from coremltools.proto.MIL_pb2 import DataType

        return str(DataType.Name(_tensor(self.value.type).dataType))


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredOp:
    """A constant expression whose arrays are in the weight file: parameter -> offset."""

    op: Constexpr
    offsets: Mapping[str, int]


def sites(spec: "Model", package: str) -> list[Site]:
    """All constants of all functions that lie in the weight file.

    Raises:
        ExportError: see `sites_of`.
    """
    names = sorted(spec.mlProgram.functions)
    return [site for name in names for site in sites_of(spec, package, name)]


def sites_of(spec: "Model", package: str, name: str) -> list[Site]:
    """The constants of one function that lie in the weight file, in its order.

    Raises:
        ExportError: the function is of another opset, or something else than a constant refers to
            the weight file: the package is compressed already, or none of ours.
    """
    function = spec.mlProgram.functions[name]
    if function.opset != OPSET:
        raise ExportError(f"{package}, {name}: opset {function.opset}, not {OPSET}")
    found = []
    for operation in function.block_specializations[OPSET].operations:
        blobs = [value for value in _values(operation) if value.HasField("blobFileValue")]
        if not blobs:
            continue
        if operation.type != "const" or operation.blocks:
            raise ExportError(f"{package}, {name}: weights of {operation.type} are not constants")
        found.append(Site(function=name, name=operation.outputs[0].name, operation=operation))
    return found


def replace_constants(
    spec: "Model", stored: Mapping[str, tuple[StoredOp, ...]], file_name: str
) -> None:
    """Put the expressions where constants of these names are, in every function.

    The last expression takes the constant's name, so nothing else changes.
    """
    for function in spec.mlProgram.functions.values():
        block: Block = function.block_specializations[OPSET]
        kept = type(block)()
        for operation in block.operations:
            name = operation.outputs[0].name if operation.type == "const" else ""
            if name in stored:
                kept.operations.extend(_expressions(operation, stored[name], file_name))
            else:
                kept.operations.append(operation)
        del block.operations[:]
        block.operations.extend(kept.operations)


def _expressions(
    constant: "Operation", stored: tuple[StoredOp, ...], file_name: str
) -> Iterator["Operation"]:
    name = constant.outputs[0].name
    previous = ""
    for number, each in enumerate(stored, start=1):
        made = type(constant)()
        made.type = each.op.kind
        for parameter, offset in sorted(each.offsets.items()):
            value = made.inputs[parameter].arguments.add().value
            part = each.op.parts[parameter]
            _declare(value.type, part.element, part.shape)
            value.blobFileValue.fileName = file_name
            value.blobFileValue.offset = offset
        if each.op.previous:
            made.inputs[each.op.previous].arguments.add().name = previous
        previous = name if number == len(stored) else f"{name}_tables"
        output = made.outputs.add()
        output.name = previous
        _declare(output.type, each.op.element, each.op.shape)
        made.attributes["name"].CopyFrom(constant.attributes["name"])
        made.attributes["name"].immediateValue.tensor.strings.values[0] = previous
        yield made


def _declare(value_type: "ValueType", element: "Element", shape: tuple[int, ...]) -> None:
    from coremltools.proto.MIL_pb2 import DataType

    tensor = value_type.tensorType
    tensor.dataType = DataType.Value(element.mil)
    tensor.rank = len(shape)
    for size in shape:
        tensor.dimensions.add().constant.size = size


def _tensor(value_type: "ValueType") -> "ValueType":
    return value_type.tensorType


def _values(operation: "Operation") -> Iterator["Value"]:
    yield from operation.attributes.values()
    for binding in operation.inputs.values():
        for argument in binding.arguments:
            if argument.HasField("value"):
                yield argument.value
    for block in operation.blocks:
        for inner in block.operations:
            yield from _values(inner)
