"""A file may carry a quantized name only if its bytes fell accordingly."""

import math
from collections.abc import Iterable
from pathlib import Path

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.weights_file import QuantizedEntry

_SCALES = 1.0
"""Bits per weight by which a target's scales may be wider than ours."""
_REST = 0.15
"""Share of the bytes before that may belong to what is not quantized: depthwise kernels, norms,
biases, the graph. A twentieth in the released towers, a tenth in a tiny one."""


def check_shrunk(
    before: Path, after: Path, entries: Iterable[QuantizedEntry], *, bits_before: int
) -> None:
    """Refuse files that are larger than their quantized tensors promise.

    Args:
        before: folder of the floating-point files.
        after: folder of the quantized ones.
        entries: the quantized tensors that are in `after`.
        bits_before: of a number in `before`.

    Raises:
        ExportError: with both sizes and the limit.
    """
    sizes = [(entry.size_bytes, math.prod(entry.shape)) for entry in entries]
    if not sizes:
        return
    mean_bits = 8 * sum(size for size, _ in sizes) / sum(count for _, count in sizes)
    limit = (mean_bits + _SCALES) / bits_before + _REST
    before_bytes, after_bytes = _size(before), _size(after)
    if not after_bytes <= limit * before_bytes:
        raise ExportError(
            f"{after_bytes} bytes after quantization to {mean_bits:.2f} bits per weight, "
            f"{before_bytes} before: expected at most {limit:.0%} of them"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
