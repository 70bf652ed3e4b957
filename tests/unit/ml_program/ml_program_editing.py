"""Damaging saved packages on purpose."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coremltools.proto import Model_pb2

SPEC = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


def edited(package: Path, copy: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a package whose specification (a protobuf message) was changed."""
    shutil.copytree(package, copy)
    model = Model_pb2.Model()
    model.ParseFromString((copy / SPEC).read_bytes())
    change(model)
    (copy / SPEC).write_bytes(model.SerializeToString())
    return copy


def patched(package: Path, copy: Path, offset: int, data: bytes) -> Path:
    """A copy of a package whose weight file has other bytes at an offset."""
    shutil.copytree(package, copy)
    weights = bytearray((copy / WEIGHTS).read_bytes())
    weights[offset : offset + len(data)] = data
    (copy / WEIGHTS).write_bytes(bytes(weights))
    return copy


def operations(model: Any, kind: str, function: str = "main") -> list[Any]:
    """The operations of one kind in a function of a specification."""
    found = model.mlProgram.functions[function]
    return [op for op in found.block_specializations[found.opset].operations if op.type == kind]


def constant(model: Any, name: str) -> Any:
    """The value message of a constant."""
    for operation in operations(model, "const"):
        if operation.outputs[0].name == name:
            return operation.attributes["val"]
    raise AssertionError(f"no constant '{name}'")
