"""The names and shapes of every tensor that a config promises, without building the model."""

from reference.checkpoint.names import (
    EMBED_TOKENS,
    HEAD_PROJECTION,
    LM_HEAD,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
)
from reference.config import FastVLMConfig, Qwen2Config, VisionConfig

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_FIRST_ATTENTION_STAGE = 3
_STAGE_INDEX = (0, 2, 4, 7, 10)
"""Where stage i stands in `network`; a patch embedding and a positional encoding come before."""


def expected_tensors(config: FastVLMConfig) -> Shapes:
    """Canonical name -> shape of every tensor, in file order.

    `head.proj`, `lm_head.weight` and the `num_batches_tracked` counters are included though a
    file may lack them (see `is_optional`).
    """
    shapes = {VISION_PREFIX + name: shape for name, shape in _vision(config.vision).items()}
    shapes |= _projector(config)
    shapes |= _language(config.text)
    return shapes


def is_optional(name: str) -> bool:
    """True for tensors that a complete checkpoint may lack.

    The unused head, an output head shared with the embedding, and BatchNorm's step counters.
    """
    return name in {HEAD_PROJECTION, LM_HEAD} or name.endswith(".num_batches_tracked")


def _vision(config: VisionConfig) -> Shapes:
    first = config.widths[0]
    shapes: Shapes = {}
    shapes |= _conv("patch_embed.0.reparam_conv", (first, 3, 3, 3))
    shapes |= _conv("patch_embed.1.reparam_conv", (first, 1, 3, 3))
    shapes |= _conv("patch_embed.2.reparam_conv", (first, first, 1, 1))
    for stage, index in enumerate(_STAGE_INDEX):
        width = config.widths[stage]
        attention = stage >= _FIRST_ATTENTION_STAGE
        if stage > 0:
            embed = f"network.{index - (2 if attention else 1)}.proj"
            shapes |= _conv(f"{embed}.0.lkb_reparam", (width, 1, 7, 7))
            shapes |= _conv(f"{embed}.1.reparam_conv", (width, width, 1, 1))
        if attention:
            shapes |= _conv(f"network.{index - 1}.reparam_conv", (width, 1, 7, 7))
        for block in range(config.depths[stage]):
            prefix = f"network.{index}.{block}."
            parts = _attention_block if attention else _repmixer_block
            shapes |= {prefix + k: v for k, v in parts(width, config.mlp_ratio * width).items()}
    out = config.out_channels
    shapes |= _conv("conv_exp.reparam_conv", (out, 1, 3, 3))
    shapes |= _conv("conv_exp.se.reduce", (out // 16, out, 1, 1))
    shapes |= _conv("conv_exp.se.expand", (out, out // 16, 1, 1))
    shapes["head.proj"] = (out, config.projection_dim)
    return shapes


def _repmixer_block(width: int, hidden: int) -> Shapes:
    return {
        "layer_scale": (width, 1, 1),
        **_conv("token_mixer.reparam_conv", (width, 1, 3, 3)),
        **_convffn(width, hidden),
    }


def _attention_block(width: int, hidden: int) -> Shapes:
    return {
        "layer_scale_1": (width, 1, 1),
        "layer_scale_2": (width, 1, 1),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "token_mixer.qkv.weight": (3 * width, width),
        "token_mixer.proj.weight": (width, width),
        "token_mixer.proj.bias": (width,),
        **_convffn(width, hidden),
    }


def _convffn(width: int, hidden: int) -> Shapes:
    norm: Shapes = {
        f"convffn.conv.bn.{name}": (width,)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    return {
        "convffn.conv.conv.weight": (width, 1, 7, 7),
        **norm,
        "convffn.conv.bn.num_batches_tracked": (),
        **_conv("convffn.fc1", (hidden, width, 1, 1)),
        **_conv("convffn.fc2", (width, hidden, 1, 1)),
    }


def _conv(name: str, weight: Shape) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def _projector(config: FastVLMConfig) -> Shapes:
    hidden = config.text.hidden_size
    return {
        PROJECTOR_PREFIX + "0.weight": (hidden, config.vision.out_channels),
        PROJECTOR_PREFIX + "0.bias": (hidden,),
        PROJECTOR_PREFIX + "2.weight": (hidden, hidden),
        PROJECTOR_PREFIX + "2.bias": (hidden,),
    }


def _language(config: Qwen2Config) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    layer: Shapes = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.q_proj.bias": (query,),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    shapes: Shapes = {EMBED_TOKENS: (config.vocab_size, hidden)}
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    shapes[LM_HEAD] = (config.vocab_size, hidden)
    return shapes
