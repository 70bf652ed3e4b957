"""What a written graph holds, read again: the integers must be those that were quantized."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.gather_quantized import read_gather_quantized
from fastvlm_compile.export.onnx.matmul_nbits import read_matmul_nbits
from fastvlm_compile.quantize.tensor import QuantizedTensor, same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedEntry, QuantizedWeights

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Which linears stand under each other in a joined one, in order."""

_READERS = {
    "MatMulNBits": (read_matmul_nbits, 1),
    "GatherBlockQuantized": (read_gather_quantized, 0),
}
"""Of each op: what decodes it, and which of its inputs holds the codes."""


def read_back(
    path: Path, entries: Mapping[str, QuantizedEntry]
) -> Iterator[tuple[str, QuantizedTensor]]:
    """Every quantized tensor of a graph file under its canonical name, joined ones apart again.

    Raises:
        ValueError: an op holds what is no tensor of ours.
    """
    graph = ir.load(path).graph
    for node in graph:
        if node.op_type not in _READERS:
            continue
        decode, position = _READERS[node.op_type]
        codes = node.inputs[position]
        assert codes is not None
        assert codes.name is not None
        names = _names(codes.name.removesuffix(".codes"))
        rows = [entries[name].shape[0] for name in names]
        yield from zip(names, split_rows(decode(graph, node), rows), strict=True)


def check_same_integers(path: Path, quantized: QuantizedWeights, expected: Collection[str]) -> None:
    """Compare every quantized tensor of a graph file with its original.

    Args:
        path: the graph.
        quantized: the originals.
        expected: canonical names of what must be there, and nothing else.

    Raises:
        ExportError: codes, scales, zero points or schemes differ, or a tensor is missing or one
            too many.
    """
    missing = set(expected)
    for name, found in read_back(path, quantized.entries):
        if name not in missing:
            raise ExportError(f"{path.name}: {name} is there twice, or should not be")
        if not same_tensor(found, quantized.read(name)):
            raise ExportError(f"{path.name}: {name} is not what was quantized")
        missing.remove(name)
    if missing:
        raise ExportError(f"{path.name}: quantized, but not in the graph: {sorted(missing)}")


def split_rows(tensor: QuantizedTensor, rows: Sequence[int]) -> list[QuantizedTensor]:
    """A block-wise tensor [sum of rows, I] as tensors of so many rows."""
    assert sum(rows) == tensor.shape[0], f"{rows} are not {tensor.shape[0]} rows"
    parts, start = [], 0
    for count in rows:
        piece = slice(start, start + count)
        parts.append(
            QuantizedTensor(
                scheme=tensor.scheme,
                codes=tensor.codes[piece],
                scales=tensor.scales[piece],
                zero_points=tensor.zero_points[piece],
                tables=tensor.tables,
            )
        )
        start += count
    return parts


def _names(stem: str) -> list[str]:
    prefix, dot, layer = stem.rpartition(".")
    return [f"{prefix}{dot}{part}.weight" for part in JOINED.get(layer, (layer,))]
