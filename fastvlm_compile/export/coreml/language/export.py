"""The language model as Core ML packages with the file that describes them."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fastvlm_compile.export.aside import run_aside
from fastvlm_compile.export.coreml.language.alike import Converted, serves_as_model, write_alike
from fastvlm_compile.export.coreml.language.check import check_chunk
from fastvlm_compile.export.coreml.language.convert import write_chunk
from fastvlm_compile.export.coreml.language.description import write_description
from fastvlm_compile.export.coreml.language.interface import first_alike
from fastvlm_compile.export.coreml.language.plan import (
    Chunk,
    DecoderConfig,
    chunk_bytes,
    package_name,
    split,
)
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from reference.kept import NOTHING_KEPT, Kept

_ASIDE_FROM_BYTES = 32 * 10**6
"""A smaller chunk is sooner converted than another process is started."""


def export_decoder(
    config: DecoderConfig,
    source: WeightSource,
    out: Path,
    progress: Progress,
    *,
    aside_from_bytes: int = _ASIDE_FROM_BYTES,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write `decoder*.mlpackage` and `language.json`; their bytes follow from the arguments alone.

    Chunks are made one after the other. Of those that are alike the first is converted, large ones
    each in a process of its own, and the others are written from it: the memory it takes is that
    of converting the largest.

    Args:
        config: the decoder, its precision and where to cut it.
        source: the weights, read chunk by chunk; can be pickled, as a checkpoint can.
        out: the folder; a package appears in it when it has passed its checks.
        progress: told of each chunk.
        aside_from_bytes: a chunk of this size gets a process of its own.
        kept: the packages that an earlier run of the same has left.

    Raises:
        UnsupportedExportError: no packages can have the sizes asked for.
        ExportError: a package is not what it should be, or a weight overflowed.
        ExportStoppedError: a chunk's process was ended from outside.
    """
    chunks = split(config)
    maker = _Maker(config=config, source=source, aside_from_bytes=aside_from_bytes)
    for done, chunk in enumerate(chunks):
        name = package_name(chunk, len(chunks))
        progress(done, len(chunks), f"{name} in {config.precision}")
        first = first_alike(chunk, chunks, config)
        model = Converted(chunk=first, package=out / package_name(first, len(chunks)))
        kept.files(name, partial(maker.make, chunk, model, name), out)
    write_description(config, chunks, out)
    progress(len(chunks), len(chunks), "language.json written")


@dataclass(kw_only=True)
class _Maker:
    """Makes packages, the first of its kind by converting it.

    Attributes:
        config, source, aside_from_bytes: as of `export_decoder`.
        serving: the packages that others can, or cannot, be written from; as far as that was
            looked at.
    """

    config: DecoderConfig
    source: WeightSource
    aside_from_bytes: int
    serving: dict[Converted, bool] = field(default_factory=dict)

    def make(self, chunk: Chunk, model: Converted, name: str, folder: Path) -> str:
        """Write `folder / name`, maybe from the first of its kind; nothing is to be told of it."""
        if chunk != model.chunk and self._serves(model, folder):
            write_alike(model, chunk, self.config, self.source, folder / name)
        elif chunk_bytes(chunk, self.config.text) < self.aside_from_bytes:
            convert_chunk(chunk, self.config, self.source, folder / name)
        else:
            run_aside(convert_chunk, chunk, self.config, self.source, folder / name)
        return ""

    def _serves(self, model: Converted, scratch: Path) -> bool:
        if model not in self.serving:
            self.serving[model] = serves_as_model(model, self.config, self.source, scratch)
        return self.serving[model]


def convert_chunk(chunk: Chunk, config: DecoderConfig, source: WeightSource, package: Path) -> None:
    """Write the package of one chunk and check it."""
    write_chunk(chunk, config, source, package)
    check_chunk(package, chunk, config)
