"""The package of a chunk, written from that of a chunk like it: one program over other weights.

The layers of a decoder are computed alike, so the packages of two chunks of as many layers differ
in their weights, in the numbers of layers in names, and in what the package tells of itself. To
convert one takes coremltools half a minute for a layer of the 7B; to write it so takes what reading
and writing its weights does.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import (
    canonical_digest,
    canonicalise,
    read_spec,
    spec_path,
)
from fastvlm_compile.export.coreml.compress.blob_writer import BlobWriter, Bytes, stored_blob
from fastvlm_compile.export.coreml.compress.elements import floating
from fastvlm_compile.export.coreml.compress.program import Site, sites_of
from fastvlm_compile.export.coreml.language.check import check_chunk, parameter_names
from fastvlm_compile.export.coreml.language.convert import FUNCTIONS
from fastvlm_compile.export.coreml.language.describe import describe_package
from fastvlm_compile.export.coreml.language.module import stored
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig
from fastvlm_compile.export.coreml.merge import WEIGHTS
from fastvlm_compile.export.coreml.shared_constants import SharedConstants
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.weight_source import WeightSource

if TYPE_CHECKING:
    from coremltools.proto.MIL_pb2 import Operation
    from coremltools.proto.Model_pb2 import Model

_LAYER = re.compile(r"\blayers_(\d+)_")
_TABLES = ("rotary",)
"""How the names of those floating-point constants begin that follow from the config alone."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A chunk that was converted, and its package."""

    chunk: Chunk
    package: Path


def write_alike(
    model: Converted,
    chunk: Chunk,
    config: DecoderConfig,
    source: WeightSource,
    package: Path,
) -> None:
    """Write the package of a chunk in canonical form, and check it.

    It takes the memory of one weight. The bytes are those that converting gives.

    Args:
        model: a chunk like it.
        chunk, config: which part of which decoder.
        source: the weights; only the chunk's are read.
        package: where to.

    Raises:
        ExportError: the model has a constant of unknown origin, or a weight is not finite in the
            precision of the package.
    """
    spec = read_spec(model.package)
    _rename_layers(spec, model.chunk, chunk)
    shutil.copytree(model.package, package, ignore=shutil.ignore_patterns(WEIGHTS.name))
    with BlobWriter(spec_path(package).parent / WEIGHTS) as writer:
        constants = SharedConstants(writer)
        tables = spec_path(model.package).parent / WEIGHTS
        names, offsets = parameter_names(chunk, config), dict[str, int]()
        for site in _sites(spec, package):
            if site.name in offsets:  # the functions share their weights
                site.value.blobFileValue.offset = offsets[site.name]
            elif site.name in names:
                weight = stored(names[site.name], chunk, config, source)
                constants.write(site, _packed(site, weight, config), floating(config.precision))
                offsets[site.name] = site.offset
            else:
                _check_table(site, tables)
                constants.copy(site, stored_blob(tables, site.offset))
    describe_package(spec, chunk, config)
    spec_path(package).write_bytes(spec.SerializeToString())
    canonicalise(package)
    check_chunk(package, chunk, config)


def serves_as_model(
    model: Converted, config: DecoderConfig, source: WeightSource, scratch: Path
) -> bool:
    """Whether writing a converted package like itself gives every byte of it again.

    If not, coremltools did something to its weights that this module does not know of.

    Args:
        model: the package.
        config: of its decoder.
        source: of its weights.
        scratch: a folder with room for another one.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        again = Path(folder) / model.package.name
        try:
            write_alike(model, model.chunk, config, source, again)
        except ExportError:
            return False
        return canonical_digest(again) == canonical_digest(model.package)


def _rename_layers(spec: "Model", like: Chunk, chunk: Chunk) -> None:
    """Have every name speak of the chunk's layers."""
    if like.layers is None or chunk.layers is None:
        return
    shift = chunk.layers.first - like.layers.first

    def renamed(name: str) -> str:
        return _LAYER.sub(lambda found: f"layers_{int(found[1]) + shift}_", name)

    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                _rename(operation, renamed)
            block.outputs[:] = [renamed(name) for name in block.outputs]


def _rename(operation: "Operation", renamed: Callable[[str], str]) -> None:
    for output in operation.outputs:
        output.name = renamed(output.name)
    for bound in operation.inputs.values():
        for argument in bound.arguments:
            if argument.HasField("name"):
                argument.name = renamed(argument.name)
    told = operation.attributes["name"].immediateValue.tensor.strings.values
    told[:] = [renamed(name) for name in told]


def _sites(spec: "Model", package: Path) -> Iterator[Site]:
    """All constants, in the order in which converting writes them."""
    for function in FUNCTIONS:
        yield from sites_of(spec, package.name, function)


def _packed(site: Site, weight: torch.Tensor, config: DecoderConfig) -> Bytes:
    """A weight as the package stores it."""
    if tuple(weight.shape) != site.shape:
        raise ExportError(f"{site.name} is {list(site.shape)}, the weight {list(weight.shape)}")
    # What overflows is infinite now; the check finds and names it.
    return weight.reshape(-1).to(getattr(torch, config.precision)).numpy().view(np.uint8)


def _check_table(site: Site, weights: Path) -> None:
    """Refuse a constant that may follow from the weights of the chunk that was converted."""
    if site.element.startswith("INT") or site.name.startswith(_TABLES):
        return
    if read_float_blob(weights, site.offset).any():  # zeros are the biases of what has none
        raise ExportError(f"nobody knows what the constant {site.name} follows from")
