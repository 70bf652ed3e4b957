"""What a compressed package must pass before anyone uses it: read back, not remembered."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastvlm_compile.export.coreml.compress.decode import CompressedReader, same_arrays
from fastvlm_compile.export.coreml.compress.names import Target, Targets
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.tensor import QuantizedTensor
from validation.runtimes.ml_program.decode import read_program
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.program import (
    Binding,
    BlobValue,
    Function,
    Immediate,
    Operation,
)
from validation.runtimes.ml_program.weights import Weights

Read = Callable[[Target], QuantizedTensor]


def check_compressed(source: Path, package: Path, targets: Targets, read: Read) -> None:
    """The targets read back bit for bit, and everything else is as it was before.

    Args:
        source: the package that was compressed.
        package: what became of it.
        targets: the constants that were to be replaced.
        read: gives what a constant has to hold now.

    Raises:
        ExportError: one of them is not so; it is named.
    """
    check_rest(source, package, targets)
    reader = CompressedReader(package)
    present = {function: set(reader.names(function)) for function in reader.functions}
    for function, names in present.items():
        if strange := names - targets.keys():
            raise ExportError(f"{package.name}, {function}: also compressed: {sorted(strange)}")
    for name, target in targets.items():
        expected = read(target)
        holding = [function for function, names in present.items() if name in names]
        if not holding:
            raise ExportError(f"{package.name}: {name} is not compressed")
        for function in holding:
            if not same_arrays(reader.read(function, name), expected):
                raise ExportError(
                    f"{package.name}, {function}: {name} does not read back as {target.name}"
                )


def check_rest(source: Path, package: Path, targets: Targets) -> None:
    """All operations but the replaced constants are the same, and so are their stored arrays.

    Raises:
        ExportError: one has changed; it is named.
    """
    before, after = open_package(source), open_package(package)
    old_weights, new_weights = Weights(before), Weights(after)
    old, new = read_program(before.spec), read_program(after.spec)
    if old.functions.keys() != new.functions.keys():
        raise ExportError(f"{package.name}: functions are {sorted(new.functions)}")
    compared: set[tuple[BlobValue, BlobValue]] = set()
    for name in old.functions:
        kept = _untouched(old.functions[name], targets)
        found = _untouched(new.functions[name], targets)
        if [_form(each) for each in kept] != [_form(each) for each in found]:
            raise ExportError(f"{package.name}, {name}: other operations have changed")
        for first, second in zip(_blobs(kept), _blobs(found), strict=True):
            if (first, second) not in compared:
                compared.add((first, second))
                one, other = old_weights.array(first), new_weights.array(second)
                if one.dtype != other.dtype or not np.array_equal(_raw(one), _raw(other)):
                    raise ExportError(
                        f"{package.name}, {name}: what was stored at {first.offset} has changed"
                    )


def _untouched(function: Function, targets: Targets) -> list[Operation]:
    """Operations that compression has no business with."""
    return [
        operation
        for operation in function.block.walk()
        if not operation.kind.startswith("constexpr_")
        and not (operation.kind == "const" and operation.outputs[0].name in targets)
    ]


def _form(operation: Operation) -> tuple[object, ...]:
    """All that can be compared of an operation without its stored arrays."""
    bindings = {name: tuple(map(_shown, given)) for name, given in operation.inputs.items()}
    attributes = {name: _shown(value) for name, value in operation.attributes.items()}
    return operation.kind, bindings, attributes, operation.outputs


def _shown(binding: Binding) -> object:
    if isinstance(binding, BlobValue):
        return binding.type, binding.file_name
    if isinstance(binding, Immediate):
        data = None if binding.data is None else binding.data.tobytes()
        return binding.type, data, binding.texts
    return binding


def _blobs(operations: list[Operation]) -> list[BlobValue]:
    return [
        value
        for operation in operations
        for value in operation.attributes.values()
        if isinstance(value, BlobValue)
    ]


def _raw(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)
