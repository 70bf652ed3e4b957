"""Packages of one function each, put together as one package that stores equal constants once.

The same as coremltools' `save_multifunction` gives, which reads all weights of all packages into
memory and converts them anew. Here the messages are copied, and weights go from file to file.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.compress.blob_writer import BlobWriter, stored_blob
from fastvlm_compile.export.coreml.compress.program import sites_of
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.coreml.shared_constants import SharedConstants

if TYPE_CHECKING:
    from coremltools.proto.Model_pb2 import FunctionDescription, Model

WEIGHTS = Path("weights", "weight.bin")
MAIN = "main"
"""What coremltools calls the only function of a package, and what runs if none is asked for."""

_UPDATE = "coreml_update_state_"
"""How coremltools names the operations that put a value into a state and take it out again."""


def merge(parts: Mapping[str, Path], package: Path, *, default: str) -> None:
    """Merge packages of one function each; a constant that several hold is stored once.

    It takes the memory of the programs without their weights.

    Args:
        parts: the name that the function gets, and its package.
        package: where to.
        default: runs if no function is asked for.

    Raises:
        ExportError: a part's weight file is damaged.
    """
    first, *_ = parts.values()
    shutil.copytree(first, package, ignore=shutil.ignore_patterns(WEIGHTS.name))
    specs = {name: read_spec(path) for name, path in parts.items()}
    merged = _merged(specs, default)
    _number_updates(merged, tuple(parts))
    weights = spec_path(package).parent / WEIGHTS
    with BlobWriter(weights) as writer:
        constants = SharedConstants(writer)
        for name, path in parts.items():
            _move_constants(merged, name, spec_path(path).parent / WEIGHTS, constants)
    spec_path(package).write_bytes(merged.SerializeToString())


def _merged(specs: "Mapping[str, Model]", default: str) -> "Model":
    """The functions in one model; what it says of itself is left to others."""
    with quiet_coremltools():
        from coremltools.proto.Model_pb2 import Model

    merged = Model(specificationVersion=max(spec.specificationVersion for spec in specs.values()))
    merged.mlProgram.version = max(spec.mlProgram.version for spec in specs.values())
    for name, spec in specs.items():
        merged.mlProgram.functions[name].CopyFrom(spec.mlProgram.functions[MAIN])
        merged.description.functions.append(_described(name, spec))
    merged.description.defaultFunctionName = default
    return merged


def _described(name: str, spec: "Model") -> "FunctionDescription":
    from coremltools.proto.Model_pb2 import FunctionDescription

    description = spec.description
    return FunctionDescription(
        name=name, input=description.input, output=description.output, state=description.state
    )


def _number_updates(merged: "Model", functions: tuple[str, ...]) -> None:
    """Number the updates of states through all functions.

    An update is written as two operations that share a name. Conversion numbers them as it goes and
    starts anew in each part; so numbered, what is written is the same as coremltools writes.
    """
    number = -1
    for name in functions:
        for block in merged.mlProgram.functions[name].block_specializations.values():
            for operation in block.operations:
                if operation.type not in ("write_state", "read_state"):
                    continue
                named = operation.attributes["name"].immediateValue.tensor.strings.values
                if operation.type == "write_state":
                    number += 1
                    named[0] = f"{_UPDATE}{number}_write_state"
                elif named[0].startswith(_UPDATE):
                    named[0] = f"{_UPDATE}{number}"


def _move_constants(
    merged: "Model", function: str, source: Path, constants: SharedConstants
) -> None:
    """Append those constants of a function that are not written yet; point all of them there."""
    for site in sites_of(merged, function, function):
        constants.copy(site, stored_blob(source, site.offset))
