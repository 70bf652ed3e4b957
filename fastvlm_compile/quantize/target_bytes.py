"""How many bytes a target spends on a tensor: the same codes, but scales of different widths."""

import math

from fastvlm_compile.quantize.presets import Target
from fastvlm_compile.quantize.scheme import Affine, Quantized, Shape

_SCALE_BYTES: dict[Target, int] = {
    "onnx": 4,  # MatMulNBits on a CPU takes float32 scales
    "coreml": 2,
    "mlx": 4,  # a float16 scale and a float16 bias
}


def stored_bytes(target: Target, scheme: Quantized, shape: Shape) -> int:
    """Bytes of a tensor of this shape in a target's file, without padding between tensors."""
    count = math.prod(shape)
    codes = -(-count * scheme.bits // 8)
    if isinstance(scheme, Affine):
        num_scales = shape[0] * scheme.num_blocks(shape)
        zero_points = 0 if scheme.symmetric else -(-num_scales * scheme.bits // 8)
        return codes + num_scales * _SCALE_BYTES[target] + zero_points
    channel_scales = 2 * shape[0] if scheme.channel_scale else 0
    return codes + 2 * scheme.num_groups(shape) * (1 << scheme.bits) + channel_scales
