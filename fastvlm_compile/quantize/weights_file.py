"""A quantized checkpoint on disk: one safetensors file a tensor, and `quantized.json` over them.

A file holds `codes` (packed, low bits first), `scales`, `zero_points` and `tables`, those that the
scheme has. Tensors that are not named in `quantized.json` are the checkpoint's own. A tensor is in
its place whole or not at all, so an interrupted quantization can go on where it was.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_compile.quantize.packing import pack, unpack
from fastvlm_compile.quantize.scheme import Quantized, SchemeError, Shape
from fastvlm_compile.quantize.scheme_json import scheme_from_json, scheme_to_json
from fastvlm_compile.quantize.tensor import QuantizedTensor, array_shapes
from reference.errors import UserError

INDEX = "quantized.json"
SCHEMA = 1


class QuantizedFileError(UserError):
    """A quantized checkpoint is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class QuantizedEntry:
    """What `quantized.json` says of one tensor.

    Attributes:
        scheme: how it is stored.
        shape: of the weight.
        method: what chose the codes: `search`, `gptq`, `clustering`, ...
        relative_error: |weight - dequantized| / |weight|, Frobenius norms; 0 for a zero weight.
        size_bytes: with codes packed.
    """

    scheme: Quantized
    shape: Shape
    method: str
    relative_error: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class QuantizedWeights:
    """One or several opened directories; tensors are read one at a time.

    Attributes:
        entries: what is there, by canonical name.
        folders: where each tensor is.
    """

    entries: Mapping[str, QuantizedEntry]
    folders: Mapping[str, Path]

    def read(self, name: str) -> QuantizedTensor:
        """One tensor.

        Raises:
            QuantizedFileError: its file is missing or not what the index says.
        """
        return _read_tensor(self.folders[name] / file_name(name), self.entries[name])


def file_name(name: str) -> str:
    """Where a tensor's arrays are, beside the index."""
    return f"{name}.safetensors"


def write_tensor(folder: Path, name: str, tensor: QuantizedTensor) -> None:
    """Write one tensor's file; it appears by rename."""
    from safetensors.numpy import save_file

    arrays = {"codes": pack(tensor.codes, tensor.scheme.bits)}
    for part in ("scales", "zero_points", "tables"):
        values = getattr(tensor, part)
        if values.size:
            arrays[part] = np.ascontiguousarray(values)
    path = folder / file_name(name)
    aside = path.with_name(f".{path.name}.partial")
    save_file(arrays, aside)
    aside.replace(path)


def write_index(folder: Path, entries: Mapping[str, QuantizedEntry]) -> None:
    """Write `quantized.json`, last, when every tensor is in its place."""
    table = {name: _to_json(entries[name]) for name in sorted(entries)}
    text = json.dumps({"schema": SCHEMA, "tensors": table}, indent=1) + "\n"
    aside = folder / f".{INDEX}.partial"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / INDEX)


def open_quantized(*folders: Path) -> QuantizedWeights:
    """Read the indices of a quantized checkpoint's parts.

    Raises:
        QuantizedFileError: there is none, it is damaged, or two parts hold the same tensor.
    """
    entries: dict[str, QuantizedEntry] = {}
    places: dict[str, Path] = {}
    for folder in folders:
        found = _read_index(folder)
        if twice := sorted(entries.keys() & found.keys()):
            raise _unusable(f"{folder}: {twice[0]} is quantized in {places[twice[0]]} as well")
        entries |= found
        places |= dict.fromkeys(found, folder)
    return QuantizedWeights(entries=entries, folders=places)


def _read_index(path: Path) -> dict[str, QuantizedEntry]:
    index = path / INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise _unusable(f"{index}: schema {content['schema']}, this program reads {SCHEMA}")
        return {str(name): _from_json(entry) for name, entry in content["tensors"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SchemeError) as error:
        raise _unusable(f"{index}: not the index of a quantized checkpoint: {error!r}") from None


def _read_tensor(path: Path, entry: QuantizedEntry) -> QuantizedTensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unusable(f"{path}: damaged: {error}") from None
    shapes = array_shapes(entry.scheme, entry.shape)
    count = int(np.prod(entry.shape))
    bits = entry.scheme.bits
    expected = {name: shape for name, shape in shapes.items() if shape != (0,)}
    expected["codes"] = (-(-count * bits // 8),)
    found = {name: array.shape for name, array in stored.items()}
    if found != expected:
        raise _unusable(f"{path}: holds {found}, expected {expected}")
    return QuantizedTensor(
        scheme=entry.scheme,
        codes=unpack(stored["codes"], bits, count).reshape(entry.shape),
        scales=stored.get("scales", np.empty(0, dtype=np.float16)),
        zero_points=stored.get("zero_points", np.empty(0, dtype=np.uint8)),
        tables=stored.get("tables", np.empty(0, dtype=np.float16)),
    )


def _to_json(entry: QuantizedEntry) -> dict[str, object]:
    return {
        "scheme": scheme_to_json(entry.scheme),
        "shape": list(entry.shape),
        "method": entry.method,
        "relative_error": entry.relative_error,
        "size_bytes": entry.size_bytes,
    }


def _from_json(raw: dict[str, object]) -> QuantizedEntry:
    shape = raw["shape"]
    if not isinstance(shape, list):
        raise TypeError("`shape` is no list")
    relative_error, size_bytes = raw["relative_error"], raw["size_bytes"]
    if not isinstance(relative_error, int | float) or not isinstance(size_bytes, int):
        raise TypeError("`relative_error` or `size_bytes` is no number")
    return QuantizedEntry(
        scheme=scheme_from_json(raw["scheme"]),
        shape=tuple(int(size) for size in shape),
        method=str(raw["method"]),
        relative_error=float(relative_error),
        size_bytes=size_bytes,
    )


def _unusable(what: str) -> QuantizedFileError:
    return QuantizedFileError(what, hint="quantize again: the stage makes it anew")
