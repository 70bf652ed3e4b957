"""The quantized form of `embedding.safetensors`: rows looked up, and only those dequantized.

Three or four tensors instead of one, and one entry `quantization` in the header's metadata:

- `embed_tokens.codes`, U8 [V, H * bits / 8]: a row's codes, packed low bits first;
- `embed_tokens.scales`, F16: [V, B] for blocks, [V] for a palette with a scale of each row;
- `embed_tokens.zero_points`, U8 [V, ceil(B * bits / 8)]: a row's zero points, packed as codes are;
- `embed_tokens.tables`, F16 [G, 2^bits] of a palette; row i uses table i * G / V.

`quantization` is JSON: `{"kind": "affine", "bits": 4, "block_size": 32, "symmetric": true,
"shape": [V, H]}`, where a block size of 0 is one scale a row, or `{"kind": "palette", "bits": 4,
"group_size": 16, "channel_scale": false, "shape": [V, H]}`, where a group size of 0 is one table
for all rows. A value is (code - zero point) * scale, the zero point of a symmetric table
2^(bits-1), or table[code] (* scale); in float32, to be rounded to the precision of the decoder's
`inputs_embeds`. The file is the same for either precision.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fastvlm_compile.export.coreml.compress.agreement import Agreement
from fastvlm_compile.export.coreml.compress.blob_writer import Bytes
from fastvlm_compile.export.coreml.compress.encode import check_encodable
from fastvlm_compile.export.coreml.compress.rows import pieces
from fastvlm_compile.export.coreml.embedding import FILE, TENSOR
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.packing import pack
from fastvlm_compile.quantize.scheme import Affine, SchemeError
from fastvlm_compile.quantize.tensor import Codes, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS
from validation.runtimes.embedding_table import EmbeddingTable

METADATA = "quantization"


def compress_embedding(
    folder: Path, quantized: QuantizedWeights, out: Path, progress: Progress
) -> Path:
    """Write the quantized table, or copy the table of `folder` if the embedding is not quantized.

    Raises:
        SchemeError: the scheme cannot hold the table's rows.
        ExportError: the tensor was not made from the table in `folder`, or what was written does
            not read back as it should.
    """
    if EMBED_TOKENS not in quantized.entries:
        return Path(shutil.copyfile(folder / FILE, out / FILE))
    entry = quantized.entries[EMBED_TOKENS]
    check_encodable(EMBED_TOKENS, entry.scheme, entry.shape)
    tensor = quantized.read(EMBED_TOKENS)
    progress(0, 2, "writing the quantized embedding table")
    path = write_table(tensor, out / FILE)
    progress(1, 2, "checking the quantized embedding table")
    check_table(path, tensor)
    _check_source(folder / FILE, quantized, tensor)
    progress(2, 2, f"{FILE} written")
    return path


def write_table(tensor: QuantizedTensor, path: Path) -> Path:
    """Write a quantized [V, H] tensor as a table; the file appears by rename.

    Raises:
        SchemeError: a row does not end at a whole byte.
    """
    from safetensors.numpy import save_file

    scheme, (rows, columns) = tensor.scheme, tensor.shape
    if columns * scheme.bits % 8:
        raise SchemeError(
            f"{EMBED_TOKENS}: rows of {columns} codes of {scheme.bits} bits are no whole bytes",
            hint="choose 8 bits, or 4 where the rows have an even number of values",
        )
    arrays: dict[str, np.ndarray] = {"codes": pack(tensor.codes, scheme.bits).reshape(rows, -1)}
    if tensor.scales.size:
        arrays["scales"] = tensor.scales
    if tensor.zero_points.size:
        arrays["zero_points"] = _packed_rows(tensor.zero_points, scheme.bits)
    if tensor.tables.size:
        arrays["tables"] = tensor.tables
    kind = "affine" if isinstance(scheme, Affine) else "palette"
    said = {"kind": kind, **asdict(scheme), "shape": [rows, columns]}
    aside = path.with_name(f".{path.name}.partial")
    # One entry only: the library writes several in any order.
    save_file(
        {f"{TENSOR}.{name}": np.ascontiguousarray(array) for name, array in arrays.items()},
        aside,
        metadata={METADATA: json.dumps(said)},
    )
    aside.replace(path)
    return path


def check_table(path: Path, tensor: QuantizedTensor) -> None:
    """Every row, looked up by the reader that runtimes use, is the tensor's bit for bit.

    Raises:
        ExportError: one is not.
    """
    table = EmbeddingTable(path)
    if table.shape != tensor.shape:
        raise ExportError(f"{path.name}: the table is {table.shape}, not {tensor.shape}")
    for rows, piece in pieces(tensor):
        found = table.look_up(np.arange(rows.start, rows.stop))
        if not np.array_equal(found.view(np.uint32), piece.dequantize().view(np.uint32)):
            raise ExportError(f"{path.name}: rows {rows.start} .. do not read back")


def _check_source(path: Path, quantized: QuantizedWeights, tensor: QuantizedTensor) -> None:
    """The codes were made from the rows that the table held."""
    table = EmbeddingTable(path)
    if table.shape != tensor.shape:
        raise ExportError(f"{path.name}: the table is {table.shape}, {EMBED_TOKENS} {tensor.shape}")
    agreement = Agreement()
    for rows, piece in pieces(tensor):
        agreement.add(EMBED_TOKENS, piece, table.look_up(np.arange(rows.start, rows.stop)))
    agreement.check(quantized.entries)


def _packed_rows(values: Codes, bits: int) -> Bytes:
    """Each row packed by itself: [V, B] -> [V, ceil(B * bits / 8)]."""
    if bits == 8:
        return values
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))  # two of four bits in a byte
    return pack(even, bits).reshape(len(values), -1)
