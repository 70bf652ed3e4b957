"""How large activation codes may be before an x64 processor without VNNI computes wrong sums.

There onnxruntime multiplies uint8 activations with int8 weights by `vpmaddubsw`, which adds the
products of two neighbouring input channels in int16 and saturates (Intel SDM, PMADDUBSW). With
codes up to 255 and weights up to 127 a pair reaches 64770, twice what int16 holds, and the layer is
wrong without a word. Codes up to about 130 keep every pair in range; the bit that is lost costs
3.4 dB on the trained tiny model (56.2 to 52.8 dB over 100 images) and nothing in the worst image.
Only an activation beyond all that calibration saw can have a larger code.

Which channels are neighbours: ONNX Runtime's MLAS lays four input channels side by side, from the
first on, for both of its kernels (QgemmU8S8KernelAvx2, ConvSymKernelAvx2).
"""

import numpy as np

from fastvlm_compile.export.onnx.activation_ranges import MAX_LEVEL

INT16_MAX = 2**15 - 1


def safe_level(weight: np.ndarray) -> int:
    """The largest activation code with which no pair of products leaves int16.

    Args:
        weight: int8 [O, I, ...]; the sums run over I, kernels are 1x1.
    """
    rows = weight.reshape(weight.shape[0], -1).astype(np.int64)
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    pairs = rows.reshape(rows.shape[0], -1, 2)
    highest = int(np.maximum(pairs, 0).sum(axis=2).max())
    lowest = int(np.maximum(-pairs, 0).sum(axis=2).max())
    return min(MAX_LEVEL, INT16_MAX // max(highest, 1), (INT16_MAX + 1) // max(lowest, 1))
