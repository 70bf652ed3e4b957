"""Another quantization of the same weights: what a stale file would hold."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastvlm_compile.corruptions.fault import Stale
from fastvlm_compile.quantize.affine import round_to_nearest
from fastvlm_compile.quantize.scheme import Palette
from fastvlm_compile.quantize.tensor import Floats, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint

_SHRUNK = 0.97
"""Where rounding to nearest was the quantizer itself, stale scales are those of smaller weights."""


def stale_of(checkpoint: Checkpoint, quantized: QuantizedWeights) -> Stale:
    """The tensors of `quantized`, quantized anew in the plainest way."""
    return lru_cache(maxsize=2)(_requantizing(checkpoint, quantized))


def _requantizing(
    checkpoint: Checkpoint, quantized: QuantizedWeights
) -> Callable[[str], QuantizedTensor]:
    def stale(name: str) -> QuantizedTensor:
        weight = checkpoint.read(name).float().numpy()
        right = quantized.read(name)
        if isinstance(right.scheme, Palette):
            return _evenly(weight, right, right.scheme)
        plain = round_to_nearest(weight, right.scheme)
        if np.array_equal(plain.scales, right.scales):
            return round_to_nearest(weight * np.float32(_SHRUNK), right.scheme)
        return plain

    return stale


def _evenly(weight: Floats, right: QuantizedTensor, scheme: Palette) -> QuantizedTensor:
    """The same codes over tables whose values are evenly spaced; scales as they are."""
    groups = weight.reshape(len(right.tables), -1)
    if scheme.channel_scale:
        largest = np.ones((len(right.tables), 1), dtype=np.float32)
    else:
        largest = np.abs(groups).max(axis=1, keepdims=True)
    steps = np.linspace(-1, 1, 2**scheme.bits, dtype=np.float32)
    return QuantizedTensor(
        scheme=scheme,
        codes=right.codes,
        scales=right.scales,
        zero_points=right.zero_points,
        tables=(largest * steps).astype(np.float16),
    )
