"""A `model.mlmodel` file as a typed program (`Model.proto`, `MIL.proto`)."""

from dataclasses import dataclass
from pathlib import Path

from validation.runtimes.ml_program.decode_features import feature
from validation.runtimes.ml_program.decode_values import value, value_type
from validation.runtimes.ml_program.errors import PackageError, UnsupportedOp
from validation.runtimes.ml_program.features import Feature
from validation.runtimes.ml_program.program import (
    Binding,
    Block,
    Function,
    Name,
    NamedType,
    Operation,
    Program,
    Value,
)
from validation.runtimes.ml_program.wire import fields


def read_program(path: Path) -> Program:
    """The program of a model specification.

    Raises:
        PackageError: it cannot be read, is damaged, or is no ML Program.
        UnsupportedOp: it takes or gives what is neither array, image nor state.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _model(data)
    except (PackageError, UnsupportedOp) as error:
        hint = error.hint or "write the package anew; it is damaged or of another kind"
        raise type(error)(f"{path}: {error.message}", hint=hint) from error


@dataclass(frozen=True, kw_only=True)
class _Interface:
    """What the description says of one function."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]


def _model(data: memoryview) -> Program:
    version = 0
    description = program = None
    for field in fields(data):
        if field.number == 1:
            version = field.signed()
        elif field.number == 2:
            description = field.message()
        elif field.number == 502:
            program = field.message()
    if program is None or description is None:
        raise PackageError(
            "the model is not an ML Program",
            hint="convert it with convert_to='mlprogram'",
        )
    interfaces, default = _description(description)
    functions = {
        name: _function(name, body, interfaces.get(name)) for name, body in _functions(program)
    }
    if default not in functions:
        known = ", ".join(functions) or "none"
        raise PackageError(f"the default function '{default}' is not in the program ({known})")
    return Program(specification_version=version, functions=functions, default_function=default)


def _description(data: memoryview) -> tuple[dict[str, _Interface], str]:
    """Interfaces by function name, and the default function."""
    functions: dict[str, _Interface] = {}
    default = ""
    parts: dict[int, list[Feature]] = {1: [], 10: [], 13: []}
    for field in fields(data):
        if field.number == 20:
            name, interface = _function_description(field.message())
            functions[name] = interface
        elif field.number == 21:
            default = field.text()
        elif field.number in parts:
            parts[field.number].append(feature(field.message()))
    if functions:
        return functions, default or next(iter(functions))
    whole = _Interface(inputs=tuple(parts[1]), outputs=tuple(parts[10]), states=tuple(parts[13]))
    return {"main": whole}, "main"


def _function_description(data: memoryview) -> tuple[str, _Interface]:
    name = ""
    parts: dict[int, list[Feature]] = {2: [], 3: [], 6: []}
    for field in fields(data):
        if field.number == 1:
            name = field.text()
        elif field.number in parts:
            parts[field.number].append(feature(field.message()))
    return name, _Interface(inputs=tuple(parts[2]), outputs=tuple(parts[3]), states=tuple(parts[6]))


def _functions(program: memoryview) -> list[tuple[str, memoryview]]:
    return [_entry(field.message()) for field in fields(program) if field.number == 2]


def _entry(data: memoryview) -> tuple[str, memoryview]:
    """Key and value of a protobuf map entry."""
    key, body = "", memoryview(b"")
    for field in fields(data):
        if field.number == 1:
            key = field.text()
        elif field.number == 2:
            body = field.message()
    return key, body


def _function(name: str, data: memoryview, interface: _Interface | None) -> Function:
    if interface is None:
        raise PackageError(f"the description says nothing of function '{name}'")
    opset = ""
    parameters: list[NamedType] = []
    blocks: dict[str, memoryview] = {}
    for field in fields(data):
        if field.number == 1:
            parameters.append(_named_type(field.message()))
        elif field.number == 2:
            opset = field.text()
        elif field.number == 3:
            key, body = _entry(field.message())
            blocks[key] = body
    if opset not in blocks:
        raise PackageError(f"function '{name}' has no block for its opset '{opset}'")
    return Function(
        name=name,
        opset=opset,
        parameters=tuple(parameters),
        block=_block(blocks[opset]),
        inputs=interface.inputs,
        outputs=interface.outputs,
        states=interface.states,
    )


def _block(data: memoryview) -> Block:
    inputs: list[NamedType] = []
    outputs: list[str] = []
    operations: list[Operation] = []
    for field in fields(data):
        if field.number == 1:
            inputs.append(_named_type(field.message()))
        elif field.number == 2:
            outputs.append(field.text())
        elif field.number == 3:
            operations.append(_operation(field.message()))
    return Block(inputs=tuple(inputs), operations=tuple(operations), outputs=tuple(outputs))


def _operation(data: memoryview) -> Operation:
    kind = ""
    inputs: dict[str, tuple[Binding, ...]] = {}
    attributes: dict[str, Value] = {}
    outputs: list[NamedType] = []
    blocks: list[Block] = []
    for field in fields(data):
        if field.number == 1:
            kind = field.text()
        elif field.number == 2:
            key, body = _entry(field.message())
            inputs[key] = tuple(_binding(item.message()) for item in fields(body))
        elif field.number == 3:
            outputs.append(_named_type(field.message()))
        elif field.number == 4:
            blocks.append(_block(field.message()))
        elif field.number == 5:
            key, body = _entry(field.message())
            attributes[key] = value(body)
    attributes.pop("name", None)  # the op's own name; its outputs' names are what is referred to
    return Operation(
        kind=kind,
        inputs=inputs,
        attributes=attributes,
        outputs=tuple(outputs),
        blocks=tuple(blocks),
    )


def _binding(data: memoryview) -> Binding:
    for field in fields(data):
        if field.number == 1:
            return Name(name=field.text())
        if field.number == 2:
            return value(field.message())
    raise PackageError("an argument is bound to nothing")


def _named_type(data: memoryview) -> NamedType:
    name = ""
    declared: memoryview | None = None
    for field in fields(data):
        if field.number == 1:
            name = field.text()
        elif field.number == 2:
            declared = field.message()
    if declared is None:
        raise PackageError(f"value '{name}' has no type")
    return NamedType(name=name, type=value_type(declared))
