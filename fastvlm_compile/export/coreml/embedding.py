"""The embedding table for devices: one file of rows, mapped into memory and indexed by token.

Not a package: a lookup computes nothing, yet as a package Core ML would compile and load the
largest tensor of the small models (272 MB in the 0.5B) to copy rows out of it, a call per token.
Mapped, a device touches the pages of the tokens it sees, and the application splices rows and image
features in the same few lines.

`embedding.safetensors` (the format is documented at https://github.com/huggingface/safetensors)
holds one tensor, `embed_tokens`: [V, H], row-major, little-endian, in the precision of the
decoder's `inputs_embeds`. The first eight bytes are the length n of the JSON header, the rows begin
at `8 + n`, and token i has the H values from `8 + n + i * H * bytes per value`. The quantized form
of the file: `compress/embedding.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from fastvlm_compile.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress
from reference.checkpoint.names import EMBED_TOKENS

FILE = "embedding.safetensors"
TENSOR = "embed_tokens"

_BLOCK_ROWS = 4096


def export_embedding(
    source: WeightSource, out: Path, progress: Progress, *, precision: Precision
) -> Path:
    """Write `embedding.safetensors`, block by block.

    Raises:
        ExportError: a value does not fit the precision.
    """
    rows, columns = source.tensors[EMBED_TOKENS].shape
    spec = TensorSpec(name=TENSOR, dtype=precision, shape=(rows, columns))
    path = out / FILE

    def blocks(_: TensorSpec) -> Iterator[bytes]:
        table = source.read(EMBED_TOKENS)
        for start in range(0, rows, _BLOCK_ROWS):
            progress(start, rows, "writing the embedding table")
            block = table[start : start + _BLOCK_ROWS].to(getattr(torch, precision))
            if not torch.isfinite(block).all():
                raise ExportError(f"{FILE}: a value of rows {start}.. is not finite in {precision}")
            yield block.contiguous().numpy().tobytes()

    write_safetensors(path, [spec], blocks, metadata={"format": "pt"})
    progress(rows, rows, f"{FILE} written")
    return path
