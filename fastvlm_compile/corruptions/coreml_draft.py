"""A Core ML package in memory, its compressed constants open for changes."""

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_compile.corruptions.stored import Bytes, StoredTensor
from fastvlm_compile.export.coreml.compress.names import Targets
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from validation.kill_matrix.draft import Site, read_draft, tensor_shape
from validation.kill_matrix.mutation import SPEC, WEIGHTS

LUT, BLOCKWISE = "constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"

_RECORD = struct.Struct("<IIQQ")


class CoreMLDraft:
    """A `Draft`; its program is the protobuf message.

    Args:
        package: to be read.
        targets: what the constants hold.
        quantized: their schemes.
    """

    def __init__(self, package: Path, targets: Targets, quantized: QuantizedWeights) -> None:
        self._package = package
        self._draft = read_draft(package)
        self.tensors: Mapping[str, StoredTensor] = {
            name: self._stored(site, targets, quantized)
            for name, site in self.sites().items()
            if name in targets
        }

    @property
    def program(self) -> Any:
        """The messages."""
        return self._draft.model

    def sites(self) -> dict[str, Site]:
        """Constant expressions by the name of their result, those of one function."""
        return {site.op.outputs[0].name: site for site in self.all_sites()}

    def all_sites(self) -> list[Site]:
        """Those of all functions."""
        return list(self._draft.sites(LUT, BLOCKWISE))

    def write(self, path: Path) -> None:
        """See `Draft`."""
        shutil.copytree(self._package, path, ignore=shutil.ignore_patterns("weight.bin"))
        (path / SPEC).write_bytes(self._draft.model.SerializeToString())
        (path / WEIGHTS).write_bytes(self._draft.weights)

    def _stored(self, site: Site, targets: Targets, quantized: QuantizedWeights) -> StoredTensor:
        name = site.op.outputs[0].name
        inner = site
        if site.op.type == LUT and site.op.inputs["lut"].arguments[0].name:
            inner = self.sites()[site.op.inputs["lut"].arguments[0].name]
        palette = site.op.type == LUT
        return StoredTensor(
            label=name,
            names=(targets[name].name,),
            first_row=targets[name].first,
            bits=quantized.entries[targets[name].name].scheme.bits,
            codes=self._packed(site, "indices" if palette else "data"),
            scales=self._floats(inner, "scale"),
            zero_points=self._packed(site, "offset"),
            tables=self._floats(inner, "data" if inner is not site else "lut"),
        )

    def _packed(self, site: Site, parameter: str) -> Bytes:
        """All bytes in a row; none where the op has no such parameter."""
        if parameter not in site.op.inputs:
            return np.empty(0, dtype=np.uint8)
        _, size, start, _ = self._record(site, parameter)
        return np.frombuffer(self._draft.weights, dtype=np.uint8, count=size, offset=start)

    def _floats(self, site: Site, parameter: str) -> np.ndarray:
        """Rows of a matrix; none where the op has no such parameter."""
        if parameter not in site.op.inputs:
            return np.empty((0, 0), dtype=np.float16)
        code, size, start, rows = self._record(site, parameter)
        if code == 1:
            halves = np.frombuffer(self._draft.weights, "<f2", size // 2, start)
            return halves.reshape(rows, -1)
        assert code == 2, f"{parameter} of blob type {code}"
        return np.frombuffer(self._draft.weights, "<f4", size // 4, start).reshape(rows, -1)

    def _record(self, site: Site, parameter: str) -> tuple[int, int, int, int]:
        """Type, bytes and place of a blob, and the first of its declared sizes."""
        value = site.op.inputs[parameter].arguments[0].value
        offset = value.blobFileValue.offset
        _, code, size, start = _RECORD.unpack_from(self._draft.weights, offset)
        return code, size, start, tensor_shape(value)[0]
