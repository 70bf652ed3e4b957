"""One package, one sequence of bytes: what varies from run to run is fixed or removed.

coremltools writes random identifiers into the manifest, the date and its torch build into the
spec, a debugger's file beside it, and protobuf maps in any order. `canonicalise` rewrites a package
so that equal programs are equal files; `canonical_digest` gives the digest of what a package says,
rewritten or not.
"""

import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from fastvlm_compile.export.errors import ExportError

if TYPE_CHECKING:
    from coremltools.proto.MIL_pb2 import Value
    from coremltools.proto.Model_pb2 import Model

DATA = "Data"
MANIFEST = "Manifest.json"

VOLATILE_METADATA = (
    "com.github.apple.coremltools.conversion_date",
    "com.github.apple.coremltools.source",
)
"""Entries of the spec's metadata that tell when and with which build of torch, not what."""

VOLATILE_BUILD_INFO = "coremltools-component-torch"
"""The same build of torch once more, in the program's attributes."""

DEBUG_FILE = "executorch_debug_handle_mapping.json"
"""Written for a debugger when the front end is `torch.export`; the manifest does not name it."""

_FILE_MODE = 0o644
_FOLDER_MODE = 0o755


class ManifestItem(TypedDict):
    """One entry of `itemInfoEntries`."""

    author: str
    description: str
    name: str
    path: str


class Manifest(TypedDict):
    """`Manifest.json` of a package."""

    fileFormatVersion: str
    itemInfoEntries: dict[str, ManifestItem]
    rootModelIdentifier: str


def spec_path(package: Path) -> Path:
    """Where the package keeps its model, as its manifest says.

    Raises:
        ExportError: the package has no readable manifest.
    """
    manifest = _read_manifest(package)
    return package / DATA / manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]


def read_spec(package: Path) -> "Model":
    """The package's model, weights not included."""
    from fastvlm_compile.export.coreml.quiet import quiet_coremltools

    with quiet_coremltools():
        from coremltools.proto.Model_pb2 import Model

    spec = Model()
    spec.ParseFromString(spec_path(package).read_bytes())
    return spec


def canonicalise(package: Path) -> None:
    """Rewrite manifest, spec and permissions in place; weights are left as they are."""
    spec_path(package).write_bytes(_canonical_spec(package))
    (package / MANIFEST).write_text(_canonical_manifest(package), encoding="utf-8")
    (package / DEBUG_FILE).unlink(missing_ok=True)
    for path in package.rglob("*"):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
    package.chmod(_FOLDER_MODE)


def canonical_digest(package: Path) -> str:
    """SHA-256 over what the package says: manifest, model and weights.

    Two conversions of one program have one digest, whether or not they were canonicalised, on
    whatever machine and day.

    Raises:
        ExportError: the package has no readable manifest.
    """
    total = hashlib.sha256()
    model = spec_path(package)
    for path in sorted(path for path in package.rglob("*") if path.is_file()):
        if path == package / DEBUG_FILE:
            continue
        if path == model:
            content = hashlib.sha256(_canonical_spec(package)).hexdigest()
        elif path == package / MANIFEST:
            content = hashlib.sha256(_canonical_manifest(package).encode()).hexdigest()
        else:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _canonical_spec(package: Path) -> bytes:
    spec = read_spec(package)
    for key in VOLATILE_METADATA:
        spec.description.metadata.userDefined.pop(key, None)
    build_info = spec.mlProgram.attributes.get("buildInfo")
    if build_info is not None:
        entries = build_info.immediateValue.dictionary.values
        kept = [entry for entry in entries if _text(entry.key) != VOLATILE_BUILD_INFO]
        del entries[:]
        entries.extend(kept)
    content: bytes = spec.SerializeToString(deterministic=True)
    return content


def _text(value: "Value") -> str:
    """The string of a MIL value that holds one."""
    strings: list[str] = [*value.immediateValue.tensor.strings.values]
    return strings[0] if strings else ""


def _canonical_manifest(package: Path) -> str:
    """The manifest with identifiers derived from the paths they stand for."""
    manifest = _read_manifest(package)
    items = manifest["itemInfoEntries"]
    renamed = {key: _identifier(item["path"]) for key, item in items.items()}
    canonical: Manifest = {
        "fileFormatVersion": manifest["fileFormatVersion"],
        "itemInfoEntries": {renamed[key]: item for key, item in items.items()},
        "rootModelIdentifier": renamed[manifest["rootModelIdentifier"]],
    }
    return json.dumps(canonical, indent=4, sort_keys=True) + "\n"


def _identifier(path: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mlpackage:{path}"))


def _read_manifest(package: Path) -> Manifest:
    path = package / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: not the manifest of a Core ML package: {error!r}") from error
    return manifest
