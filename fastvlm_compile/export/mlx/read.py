"""Reads an MLX folder back as the tensors it was made from, without MLX."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from fastvlm_compile.export.mlx.encoding import MlxArrays, MlxFileError, decode
from fastvlm_compile.quantize.tensor import QuantizedTensor

_SCALES = ".scales"


@dataclass(frozen=True, kw_only=True)
class MlxWeights:
    """An opened folder; tensors are read one at a time, by their names in it."""

    folder: Path
    files: Mapping[str, str]
    """Tensor -> file."""
    quantization: Mapping[str, object]
    """As in `config.json`; empty where nothing is quantized."""

    @property
    def quantized(self) -> tuple[str, ...]:
        """Names of the packed weights: `language_model.lm_head.weight`."""
        return tuple(
            sorted(
                name.removesuffix(_SCALES) + ".weight"
                for name in self.files
                if name.endswith(_SCALES)
            )
        )

    def read(self, name: str) -> QuantizedTensor:
        """A quantized tensor by the name of its packed weight; see `encoding.decode`.

        Raises:
            MlxFileError: it is damaged, or holds what this program does not write.
        """
        module = name.removesuffix(".weight")
        bits, group_size = self._choice(module)
        arrays = MlxArrays(
            weight=self._array(name, np.uint32),
            scales=self._array(f"{module}.scales", np.float16),
            biases=self._array(f"{module}.biases", np.float16),
        )
        return decode(name, arrays, bits=bits, group_size=group_size)

    def read_values(self, name: str) -> np.ndarray:
        """A float tensor as it is stored."""
        return self._stored(name)

    def _choice(self, module: str) -> tuple[Literal[4, 8], int]:
        own = self.quantization.get(module, self.quantization)
        bits, group_size = (
            (own.get("bits"), own.get("group_size")) if isinstance(own, Mapping) else (None, None)
        )
        if bits not in (4, 8) or not isinstance(group_size, int):
            raise MlxFileError(
                f"{self.folder / 'config.json'}: quantization of {module}: "
                f"bits {bits}, group_size {group_size}"
            )
        return 4 if bits == 4 else 8, group_size

    def _array(self, name: str, dtype: type[np.generic]) -> np.ndarray:
        array = self._stored(name)
        if array.dtype != dtype or array.ndim != 2:
            raise MlxFileError(
                f"{self.folder}: {name} is {array.dtype} {list(array.shape)}, "
                f"expected a matrix of {np.dtype(dtype)}"
            )
        return array

    def _stored(self, name: str) -> np.ndarray:
        if name not in self.files:
            raise MlxFileError(f"{self.folder}: there is no tensor {name}")
        path = self.folder / self.files[name]
        try:
            with safe_open(str(path), framework="numpy") as file:
                array: np.ndarray = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise MlxFileError(f"{path}: damaged: {error}") from None
        return array


def read_mlx(folder: Path) -> MlxWeights:
    """List what `export_mlx` wrote.

    Raises:
        MlxFileError: the folder is none, or damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files: dict[str, str] = {}
        for path in sorted(folder.glob("model*.safetensors")):
            with safe_open(str(path), framework="numpy") as file:
                files |= dict.fromkeys(file.keys(), path.name)
    except (OSError, ValueError, SafetensorError) as error:
        raise MlxFileError(f"{folder}: not an MLX folder: {error}") from None
    if not files:
        raise MlxFileError(f"{folder}: no model*.safetensors in it")
    quantization = config.get("quantization", {}) if isinstance(config, dict) else None
    if not isinstance(quantization, dict):
        raise MlxFileError(f"{folder / 'config.json'}: `quantization` is no table")
    return MlxWeights(folder=folder, files=files, quantization=quantization)
