"""The functions that a written package declares, and what each takes and gives: read back."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.contract import Feature
from fastvlm_compile.export.coreml.merge import MAIN
from fastvlm_compile.export.errors import ExportError

if TYPE_CHECKING:
    from coremltools.proto.Model_pb2 import FeatureDescription, Model


def check_functions(
    package: Path, spec: "Model", expected: Mapping[str, tuple[Feature, Feature]]
) -> None:
    """Names, inputs and outputs of all functions, and that they share their weights.

    Args:
        package: the `.mlpackage`.
        spec: its specification.
        expected: input and output by function; `main`, which must be among them, is the default.

    Raises:
        ExportError: one of them is otherwise; it is named.
    """
    described = spec.description.functions
    found = {function.name: (function.input, function.output) for function in described}
    if not found:  # a package of one function says what it takes one level higher
        found = {MAIN: (spec.description.input, spec.description.output)}
    names = set(spec.mlProgram.functions)
    default = spec.description.defaultFunctionName or MAIN
    if not (set(found) == names == set(expected) and default == MAIN):
        raise ExportError(
            f"{package.name}: functions are {sorted(names)}, {default} the default; "
            f"expected {sorted(expected)}, {MAIN} the default"
        )
    for name, (given, result) in expected.items():
        inputs, outputs = found[name]
        _check_features(f"{package.name}, {name}: inputs", inputs, given)
        _check_features(f"{package.name}, {name}: outputs", outputs, result)
    shared = set(_blobs(spec, MAIN))
    for name in expected:
        if set(_blobs(spec, name)) != shared:
            raise ExportError(f"{package.name}: {name} and {MAIN} do not share all weights")


def _check_features(what: str, found: Iterable["FeatureDescription"], expected: Feature) -> None:
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    described = [
        (
            feature.name,
            feature.type.multiArrayType.dataType,
            [*feature.type.multiArrayType.shape],
            feature.type.multiArrayType.WhichOneof("ShapeFlexibility"),
        )
        for feature in found
    ]
    dtype = ArrayFeatureType.ArrayDataType.Value(expected.dtype.upper())
    wanted = [(expected.name, dtype, list(expected.shape), None)]
    if described != wanted:
        raise ExportError(f"{what} are {described}, the contract is {wanted}")


def _blobs(spec: "Model", function: str) -> Iterator[int]:
    """Where a function's weights lie in the weight file."""
    for block in spec.mlProgram.functions[function].block_specializations.values():
        for operation in block.operations:
            value = operation.attributes.get("val")
            if value is not None and value.HasField("blobFileValue"):
                yield value.blobFileValue.offset
