"""Rows of a quantized tensor as a quantized tensor: the head may be dealt out to packages."""

from collections.abc import Iterator
from dataclasses import replace

from fastvlm_compile.quantize.scheme import Palette, SchemeError
from fastvlm_compile.quantize.tensor import QuantizedTensor

_VALUES_AT_ONCE = 2**22
"""Weights of a piece at most, or one group's: what a pass over a tensor holds in float32."""


def take_rows(tensor: QuantizedTensor, first: int, count: int) -> QuantizedTensor:
    """Output channels `first` .. `first + count - 1`, with what belongs to them.

    Raises:
        SchemeError: the cut goes through a group of channels that share a table.
    """
    if (first, count) == (0, tensor.shape[0]):
        return tensor
    end = first + count
    scales = tensor.scales[first:end]
    codes = tensor.codes[first:end]
    if not isinstance(tensor.scheme, Palette):
        zero_points = tensor.zero_points[first:end]
        return replace(tensor, codes=codes, scales=scales, zero_points=zero_points)
    group = tensor.scheme.group_size
    if group == 0:
        return replace(tensor, codes=codes, scales=scales)
    if first % group or count % group:
        raise SchemeError(
            f"rows {first} .. {end - 1} cut a group of {group} channels that share a table",
            hint="choose a group that divides the rows of a chunk, or a larger max_chunk_mb",
        )
    tables = tensor.tables[first // group : end // group]
    return replace(tensor, codes=codes, scales=scales, tables=tables)


def pieces(tensor: QuantizedTensor) -> Iterator[tuple[slice, QuantizedTensor]]:
    """The tensor in runs of rows, each small enough to be dequantized without a thought."""
    rows = tensor.shape[0]
    step = max(1, _VALUES_AT_ONCE // (tensor.codes.size // rows))
    if isinstance(tensor.scheme, Palette) and tensor.scheme.group_size:
        group = tensor.scheme.group_size
        step = max(1, step // group) * group
    for first in range(0, rows, step):
        count = min(step, rows - first)
        yield slice(first, first + count), take_rows(tensor, first, count)
