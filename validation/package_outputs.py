"""What FLOAT32 packages returned on the goldens, kept to compare FLOAT16 packages with.

So the loss of precision is seen apart from the conversion: both come from one executor and differ
in nothing else. A safetensors file; its metadata names the executor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference.errors import UserError

OUTPUTS_FILE = "outputs.safetensors"
_METADATA = "fastvlm_compile"


@dataclass(frozen=True, kw_only=True)
class PackageOutputs:
    """Arrays by name: `vision/<image>`, `projector/<image>`, `decoder/<case>/<route>`.

    Attributes:
        executor: what computed them.
        executed_by_core_ml: whether that was Core ML.
        arrays: float32.
    """

    executor: str
    executed_by_core_ml: bool
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class NoOutputs:
    """There is nothing to compare with, and why."""

    reason: str


def write_outputs(folder: Path, outputs: PackageOutputs) -> None:
    """Writes `outputs.safetensors`; equal outputs give equal bytes."""
    from safetensors.numpy import save_file

    about = {"executor": outputs.executor, "executed_by_core_ml": outputs.executed_by_core_ml}
    arrays = {name: np.ascontiguousarray(outputs.arrays[name]) for name in sorted(outputs.arrays)}
    save_file(arrays, folder / OUTPUTS_FILE, metadata={_METADATA: json.dumps(about)})


def read_outputs(folder: Path) -> PackageOutputs | NoOutputs:
    """Reads what `write_outputs` wrote; NoOutputs where nothing could execute the packages.

    Raises:
        UserError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / OUTPUTS_FILE
    if not path.exists():
        return NoOutputs(reason="the float32 packages were not executed")
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_METADATA])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return PackageOutputs(
                executor=str(about["executor"]),
                executed_by_core_ml=bool(about["executed_by_core_ml"]),
                arrays=arrays,
            )
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: damaged: {error!r}", hint="`fastvlm-compile store verify` finds more of it"
        ) from None
