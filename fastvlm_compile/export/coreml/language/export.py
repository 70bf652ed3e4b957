"""The language model as Core ML packages with the file that describes them."""

from pathlib import Path

from fastvlm_compile.export.aside import run_aside
from fastvlm_compile.export.coreml.language.check import check_chunk
from fastvlm_compile.export.coreml.language.convert import write_chunk
from fastvlm_compile.export.coreml.language.description import write_description
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

    Chunks are made one after the other, large ones each in a process of its own: the memory it
    takes is that of the largest.

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
    for done, chunk in enumerate(chunks):
        name = package_name(chunk, len(chunks))
        progress(done, len(chunks), f"converting {name} to {config.precision}")

        def make(folder: Path, chunk: Chunk = chunk, name: str = name) -> str:
            if chunk_bytes(chunk, config.text) < aside_from_bytes:
                convert_chunk(chunk, config, source, folder / name)
            else:
                run_aside(convert_chunk, chunk, config, source, folder / name)
            return ""

        kept.files(name, make, out)
    write_description(config, chunks, out)
    progress(len(chunks), len(chunks), "language.json written")


def convert_chunk(chunk: Chunk, config: DecoderConfig, source: WeightSource, package: Path) -> None:
    """Write the package of one chunk and check it."""
    write_chunk(chunk, config, source, package)
    check_chunk(package, chunk, config)
