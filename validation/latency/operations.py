"""How many multiply-adds a FastVLM makes, from its config: every matrix and every convolution.

Element-wise work (norms, GELU, softmax, rotation) is left out: a bound must not be too high. A test
holds the numbers to those counted in the exported graphs.
"""

from reference.config import PATCH_SIZE, FastVLMConfig, Qwen2Config, VisionConfig

_PER_MAC = 2
_STEM_STRIDE = 4
# As in `reference/fastvithd.py`, which needs PyTorch to be imported.
_FIRST_ATTENTION_STAGE = 3
_SQUEEZE_RATIO = 16


def vision_operations(config: VisionConfig, image_size: int) -> int:
    """Of the tower for one image, before the projector."""
    area = (image_size // _STEM_STRIDE) ** 2
    first = config.widths[0]
    macs = 4 * area * first * 3 * 9  # the first convolution gives twice the sides
    macs += area * first * (9 + first)
    for stage in range(len(config.widths)):
        width = config.widths[stage]
        if stage > 0:
            area //= 4
            macs += area * width * (49 + width)  # LargeKernelConv, then 1x1
        if stage >= _FIRST_ATTENTION_STAGE:
            macs += area * width * 49  # positional encoding
        macs += config.depths[stage] * _block_macs(config, stage, area)
    out = config.out_channels
    macs += area * out * 9 + 2 * out * (out // _SQUEEZE_RATIO)
    assert area == (image_size // PATCH_SIZE) ** 2, "the map's sides do not come out even"
    return _PER_MAC * macs


def projector_operations(config: FastVLMConfig, num_image_tokens: int) -> int:
    """Of the two linear layers for one image."""
    hidden = config.text.hidden_size
    return _PER_MAC * num_image_tokens * hidden * (config.vision.out_channels + hidden)


def decoder_operations(config: Qwen2Config, *, num_new: int, num_past: int) -> int:
    """Of the decoder that takes in `num_new` positions behind `num_past`; one row of logits."""
    hidden, head_dim = config.hidden_size, config.head_dim
    query, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    linear = hidden * (query + 2 * kv) + query * hidden + 3 * hidden * config.intermediate_size
    # A position looks at those before it and at itself: scores, then the weighted sum.
    looked_at = num_new * num_past + num_new * (num_new + 1) // 2
    per_layer = num_new * linear + 2 * looked_at * query
    head = hidden * config.vocab_size
    return _PER_MAC * (config.num_hidden_layers * per_layer + head)


def _block_macs(config: VisionConfig, stage: int, area: int) -> int:
    """Of one block of a stage over a map of `area` positions."""
    width = config.widths[stage]
    feed_forward = area * width * (49 + 2 * config.mlp_ratio * width)
    if stage < _FIRST_ATTENTION_STAGE:
        return feed_forward + area * width * 9
    return feed_forward + area * width * 4 * width + 2 * area * area * width
