"""The language model as Core ML packages with the file that describes them."""

import shutil
import tempfile
from pathlib import Path

from fastvlm_compile.export.coreml.language.check import check_chunk
from fastvlm_compile.export.coreml.language.convert import write_chunk
from fastvlm_compile.export.coreml.language.description import write_description
from fastvlm_compile.export.coreml.language.plan import DecoderConfig, package_name, split
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress


def export_decoder(
    config: DecoderConfig, source: WeightSource, out: Path, progress: Progress
) -> None:
    """Write `decoder*.mlpackage` and `language.json`; their bytes follow from the arguments alone.

    Chunks are made one after the other: the memory it takes is that of the largest.

    Args:
        config: the decoder, its precision and where to cut it.
        source: the weights, read chunk by chunk.
        out: the folder; a package appears in it when it has passed its checks.
        progress: told of each chunk.

    Raises:
        UnsupportedExportError: no packages can have the sizes asked for.
        ExportError: a package is not what it should be, or a weight overflowed.
    """
    chunks = split(config)
    for done, chunk in enumerate(chunks):
        name = package_name(chunk, len(chunks))
        progress(done, len(chunks), f"converting {name} to {config.precision}")
        with tempfile.TemporaryDirectory(dir=out) as folder:
            aside = Path(folder) / name
            write_chunk(chunk, config, source, aside)
            check_chunk(aside, chunk, config)
            shutil.move(aside, out / name)
    write_description(config, chunks, out)
    progress(len(chunks), len(chunks), "language.json written")
