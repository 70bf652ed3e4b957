"""The files of a `.mlpackage`, found through its manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from validation.runtimes.ml_program.errors import PackageError

_MODEL_PATH = "@model_path"


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where a package keeps what.

    Attributes:
        path: the `.mlpackage` directory.
        spec: the model specification (`model.mlmodel`).
    """

    path: Path
    spec: Path

    def weight_file(self, name: str) -> Path:
        """The file that a program calls `name`, such as "@model_path/weights/weight.bin".

        Raises:
            PackageError: the name leads out of the package or to no file.
        """
        parts = PurePosixPath(name).parts
        if not parts or parts[0] != _MODEL_PATH or ".." in parts:
            raise PackageError(f"{self.path}: weight file '{name}' is not inside the package")
        found = self.spec.parent.joinpath(*parts[1:])
        if not found.is_file():
            raise PackageError(
                f"{self.path}: weight file {found.relative_to(self.path)} is missing",
                hint="copy the whole .mlpackage directory",
            )
        return found


def open_package(path: Path) -> Package:
    """The package at `path`.

    Raises:
        PackageError: it is no package directory, or its manifest is damaged or names no model.
    """
    manifest = path / "Manifest.json"
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "a Core ML package is a directory with a Manifest.json"
        raise PackageError(f"{path} is not an .mlpackage: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise PackageError(f"{manifest} is not JSON: {error}") from error
    spec = _root_item(entries, manifest)
    data = path / "Data"
    if ".." in PurePosixPath(spec).parts or not (data / spec).is_file():
        raise PackageError(f"{manifest} names the model '{spec}', which is not in {data}")
    return Package(path=path, spec=data / spec)


def _root_item(entries: object, manifest: Path) -> str:
    """Path of the root model below `Data/`."""
    if isinstance(entries, Mapping):
        items = entries.get("itemInfoEntries")
        root = entries.get("rootModelIdentifier")
        if isinstance(items, Mapping) and isinstance(items.get(root), Mapping):
            found = items[root].get("path")
            if isinstance(found, str):
                return found
    raise PackageError(f"{manifest} names no root model")
