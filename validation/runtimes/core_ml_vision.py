"""A package without state: what it declares. Nothing is executed."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reference.errors import UserError
from validation.signature import Port, Signature

if TYPE_CHECKING:
    import coremltools

IMAGES = "images"
IMAGE_FEATURES = "image_features"
MAIN = "main"
"""The only function of most packages, and the default one of those that have more."""


class PackageUnreadableError(UserError):
    """A `.mlpackage` is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class PackageDescription:
    """What a package says of itself.

    Attributes:
        kind: "mlProgram", "neuralNetwork", ...
        functions: names of the ML Program's functions.
        default: the function that runs if none is asked for.
        signatures: inputs and outputs by function; an optional or flexible one is spelled in its
            dims.
    """

    kind: str
    functions: tuple[str, ...]
    default: str
    signatures: Mapping[str, Signature]


def describe_package(package: Path) -> PackageDescription:
    """Reads the package's specification; nothing is executed.

    Raises:
        PackageUnreadableError: the package is missing or damaged.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

    with quiet():
        from coremltools.proto import Model_pb2

    path = _spec_path(package)
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise _unreadable(package, f"its specification cannot be read: {error}") from None
    return PackageDescription(
        kind=str(spec.WhichOneof("Type")),
        functions=tuple(sorted(spec.mlProgram.functions)),
        default=spec.description.defaultFunctionName or MAIN,
        signatures=_signatures(spec.description),
    )


def why_not_runnable() -> str:
    """Why Core ML cannot run here, empty where it can."""
    if sys.platform != "darwin":
        return f"no Core ML runtime on this platform ({sys.platform})"
    return ""


def _signatures(
    description: "coremltools.proto.Model_pb2.ModelDescription",
) -> dict[str, Signature]:
    """Of every function; a package of one function tells it one level higher."""
    functions = {function.name: function for function in description.functions}
    return {
        name: Signature(
            inputs=tuple(_port(feature) for feature in function.input),
            outputs=tuple(_port(feature) for feature in function.output),
        )
        for name, function in (functions or {MAIN: description}).items()
    }


def _spec_path(package: Path) -> Path:
    """Where the manifest says that the specification is."""
    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except FileNotFoundError:
        raise _unreadable(package, "there is no such package, or it has no Manifest.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _unreadable(package, f"its Manifest.json is damaged: {error}") from None
    return package / "Data" / str(root)


def _unreadable(package: Path, what: str) -> PackageUnreadableError:
    return PackageUnreadableError(f"{package}: {what}", hint="build the package again")


def _port(feature: "coremltools.proto.Model_pb2.FeatureDescription") -> Port:
    """A multi-array as a port; anything else by its kind, so that it can only mismatch."""
    kind = str(feature.type.WhichOneof("Type"))
    if kind != "multiArrayType":
        return Port(name=feature.name, dtype=kind, dims=())
    array = feature.type.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    dims: tuple[int | str, ...] = tuple(array.shape)
    if flexible or feature.type.isOptional:
        dims = (*dims, str(flexible or "optional"))
    return Port(name=feature.name, dtype=_dtype(array), dims=dims)


def _dtype(array: "coremltools.proto.FeatureTypes_pb2.ArrayFeatureType") -> str:
    name = str(type(array).ArrayDataType.Name(array.dataType))
    known = {"FLOAT32": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "INT32": "int32"}
    return known.get(name, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools prints about libraries that only a Mac has while it is imported."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
