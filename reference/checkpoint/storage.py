"""Where the tensors of a checkpoint directory lie: safetensors or pickled, single or sharded.

Names here are those of the files, in whatever layout; `tensors.py` makes them canonical.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from reference.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}
"""safetensors' dtype names -> the usual ones."""

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
}
"""Usual dtype name -> bytes of one value."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file says of one tensor, before its values are read."""

    stored_name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    """File name inside the checkpoint directory."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def find_weight_files(directory: Path) -> tuple[Path, ...]:
    """The weight files of a checkpoint, safetensors before pickled ones.

    Raises:
        CheckpointError: there are none, or an index names one that is missing.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        single = directory / f"{stem}.{suffix}"
        if single.is_file():
            return (single,)
        index = directory / f"{stem}.{suffix}.index.json"
        if index.is_file():
            return _files_of_index(index)
    raise CheckpointError(
        f"{directory}: no weights found",
        hint="expected model.safetensors, model.safetensors.index.json, pytorch_model.bin "
        "or pytorch_model.bin.index.json",
    )


def scan_file(path: Path) -> dict[str, TensorInfo]:
    """Stored name -> what the file says of it; values are not read from safetensors.

    Raises:
        CheckpointError: the file is truncated or not what its suffix says.
    """
    if path.suffix == ".bin":
        return {
            name: _info(path, name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in load_pickled(path).items()
        }
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return {
                name: _info(
                    path,
                    name,
                    DTYPES.get(slice_.get_dtype(), slice_.get_dtype()),
                    tuple(slice_.get_shape()),
                )
                for name, slice_ in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def read_tensor(path: Path, stored_name: str) -> "Tensor":
    """One tensor of a safetensors file in the dtype it is stored in, memory-mapped."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(stored_name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def load_pickled(path: Path) -> Mapping[str, "Tensor"]:
    """A pickled state dict, memory-mapped; code in it is refused (`weights_only`)."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a plain pickled state dict: {_first_line(error)}",
            hint="only tensors are read from .bin files, never code; convert it to safetensors",
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors")
    return state


def _files_of_index(index: Path) -> tuple[Path, ...]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: not an index of shards (no weight_map)") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} is not a plain file name")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: missing shard {', '.join(missing)}", hint="download the checkpoint again"
        )
    files = tuple(index.parent / name for name in names)
    _check_index(index, weight_map, files)
    return files


def _check_index(index: Path, weight_map: Mapping[str, str], files: tuple[Path, ...]) -> None:
    held = {name: path.name for path in files for name in scan_file(path)}
    wrong = sorted(name for name, file in weight_map.items() if held.get(name) != file)
    if wrong:
        raise CheckpointError(
            f"{index}: {len(wrong)} tensors are not in the shard it names, first {wrong[0]!r}",
            hint="download the checkpoint again",
        )


def _info(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    known = tuple(DTYPES.values())
    if dtype not in known:
        raise CheckpointError(
            f"{path}: tensor {name!r} has dtype {dtype}", hint=f"known: {', '.join(known)}"
        )
    return TensorInfo(stored_name=name, shape=shape, dtype=dtype, file=path.name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a readable safetensors file: {error}",
        hint="the file is truncated or damaged; fetch or write it again",
    )
