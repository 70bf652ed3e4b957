"""Whether quantized tensors are made from the weights they are to replace.

A constant and the tensor in its place differ by what quantization cost, which the quantizer wrote
down. Another tensor's codes, or those of another checkpoint, differ by far more.
"""

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fastvlm_compile.export.coreml.compress.blob_writer import StoredBlob
from fastvlm_compile.export.coreml.compress.rows import pieces
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedEntry

SLACK_RELATIVE = 0.02
SLACK = 2e-3
"""A float16 constant is up to 2^-11 = 5e-4 from its weight, more where it is subnormal; a tensor
in the wrong place is past 1, a stale one of the same weights shows another error."""

_BLOB_DTYPES = {1: "<f2", 2: "<f4"}

Squares = tuple[float, float]


class Agreement:
    """Sums |weight - dequantized|^2 and |weight|^2 over the pieces of each tensor."""

    def __init__(self) -> None:
        self._sums: dict[str, Squares] = {}

    def compare(self, name: str, tensor: QuantizedTensor, blob: StoredBlob) -> None:
        """Learn from a float constant [O, I, ...] that holds rows of the tensor `name`.

        Raises:
            ExportError: the blob holds no floats, or more or fewer than the tensor.
        """
        dtype = _BLOB_DTYPES.get(blob.element)
        size = tensor.codes.size
        if dtype is None or blob.size_bytes != size * np.dtype(dtype).itemsize:
            raise ExportError(f"{blob.file}: {blob.size_bytes} bytes for {size} weights of {name}")
        values = np.memmap(
            blob.file, dtype=dtype, mode="r", offset=blob.data_offset, shape=tensor.shape
        )
        self.add(name, tensor, values)

    def add(self, name: str, tensor: QuantizedTensor, values: npt.NDArray[np.floating]) -> None:
        """Learn from the weights themselves, in the tensor's shape."""
        difference, weight = self._sums.get(name, (0.0, 0.0))
        for rows, piece in pieces(tensor):
            expected = values[rows].astype(np.float32)
            difference += _square(expected - piece.dequantize())
            weight += _square(expected)
        self._sums[name] = (difference, weight)

    def to_json(self) -> str:
        """The sums, for `learn`."""
        return json.dumps(self._sums)

    def learn(self, sums: str) -> None:
        """Add what another one learnt of further rows."""
        for name, (more_difference, more_weight) in json.loads(sums).items():
            difference, weight = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (difference + more_difference, weight + more_weight)

    def check(self, entries: Mapping[str, QuantizedEntry]) -> None:
        """Hold what was learnt against what the quantizer wrote down.

        Raises:
            ExportError: a tensor is further from its weights, or nearer, than it may be.
        """
        for name, (difference, weight) in self._sums.items():
            error = (difference / weight) ** 0.5 if weight else difference
            recorded = entries[name].relative_error
            slack = SLACK + SLACK_RELATIVE * recorded
            if not abs(error - recorded) <= slack:
                raise ExportError(
                    f"{name}: {error:.4f} from the package's weights, the quantizer says "
                    f"{recorded:.4f}: it was made from other weights"
                )


def _square(values: npt.NDArray[np.float32]) -> float:
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))
