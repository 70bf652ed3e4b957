"""The decoder, one layer in memory at a time: its inputs are gathered, it is quantized, it runs.

The activations that reach a layer come through the quantized layers before it, as in GPTQ (arXiv
2210.17323, section 4), so that a layer makes up for errors made before it. Within a layer they are
those of its own unquantized weights.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastvlm_compile.quantize.bench import Bench
from fastvlm_compile.quantize.hessians import InputMoments
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.config import Qwen2Config
from reference.kept import NOTHING_KEPT, Kept
from reference.qwen2 import DecoderLayer, RMSNorm, attention_bias, rotary_embedding

_SHARING_INPUTS: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""The first of a layer's linears that see the same inputs -> all of them."""

_INPUTS = "inputs of layer"
"""The name of what is kept; behind the last layer it is the head that takes them."""


def quantize_decoder(
    bench: Bench, first_layer: int, hidden: list[Tensor], kept: Kept = NOTHING_KEPT
) -> None:
    """Quantize decoder layers and the head for the prompts that they will see.

    Args:
        bench: weights and choices.
        first_layer: those before it are quantized.
        hidden: what it is given, [L, H] of each prompt, float32; used up: afterwards it holds other
            layers' outputs.
        kept: what the layer after the last finished one is given.
    """
    config = bench.config.text
    for index in range(first_layer, config.num_hidden_layers):
        if not bench.pending():
            return
        bench.tell(f"calibrate layer {index}")
        _quantize_layer(bench, f"model.layers.{index}.", hidden)
        kept.keep_state(_INPUTS, index + 1, {str(row): x.numpy() for row, x in enumerate(hidden)})
    _quantize_head(bench, hidden)


def kept_inputs(bench: Bench, kept: Kept) -> tuple[int, list[Tensor]] | None:
    """A layer and what it is given, if an earlier run came so far and all before it is done."""
    found = kept.last_state(_INPUTS)
    if found is None or any(_waits_before(name, found[0]) for name in bench.pending()):
        return None
    first_layer, hidden = found
    return first_layer, [torch.from_numpy(hidden[str(row)]) for row in range(len(hidden))]


def _waits_before(name: str, layer: int) -> bool:
    """Whether a tensor sees its inputs before a layer does; the head comes last."""
    match = re.match(r"model\.layers\.(\d+)\.", name)
    if match is None:
        return name not in (EMBED_TOKENS, LM_HEAD)
    return int(match[1]) < layer


def _quantize_layer(bench: Bench, prefix: str, hidden: list[Tensor]) -> None:
    layer = _load_layer(bench, prefix)
    gathered = _moments(bench, prefix)
    if gathered:
        hooks = [
            layer.get_submodule(first).register_forward_pre_hook(_Gather(moments))
            for first, moments in gathered.items()
        ]
        for x in hidden:
            _run(layer, x, bench.config.text)
        for hook in hooks:
            hook.remove()
    for first, linears in _SHARING_INPUTS.items():
        # Popped: the largest matrix is then free before the next is worked on.
        moments = gathered.pop(first, None)
        for linear in linears:
            bench.quantize(f"{prefix}{linear}.weight", moments)
            weight = bench.weight(f"{prefix}{linear}.weight")
            module = layer.get_submodule(linear)
            module.weight = nn.Parameter(weight, requires_grad=False)
    for index, x in enumerate(hidden):
        hidden[index] = _run(layer, x, bench.config.text)


class _Gather:
    """A hook before a linear layer that adds up its inputs."""

    def __init__(self, moments: InputMoments) -> None:
        self._moments = moments

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        del module
        self._moments.add(args[0])


def _load_layer(bench: Bench, prefix: str) -> DecoderLayer:
    """The layer as the checkpoint has it, also where tensors of it are quantized already."""
    with torch.device("meta"):
        layer = DecoderLayer(bench.config.text)
    state = {name: bench.original(prefix + name) for name in layer.state_dict()}
    layer.load_state_dict(state, strict=True, assign=True)
    return layer.eval().requires_grad_(requires_grad=False)


def _moments(bench: Bench, prefix: str) -> dict[str, InputMoments]:
    """Of the inputs that must be gathered, by the first linear that sees them."""
    gathered = {}
    for first, linears in _SHARING_INPUTS.items():
        needs = {bench.need(f"{prefix}{linear}.weight") for linear in linears}
        if needs != {"nothing"}:
            _, num_inputs = bench.shape(f"{prefix}{first}.weight")
            gathered[first] = InputMoments(num_inputs=num_inputs, full="full" in needs)
    return gathered


def _run(layer: DecoderLayer, x: Tensor, config: Qwen2Config) -> Tensor:
    """One prompt [L, H] through one layer."""
    length = len(x)
    rotary = rotary_embedding(torch.arange(length)[None], config)
    bias = attention_bias(torch.ones((1, length), dtype=torch.long), length, x.dtype)
    result: Tensor = layer(x[None], rotary, bias, None)[0]
    return result[0]


def _quantize_head(bench: Bench, hidden: list[Tensor]) -> None:
    """The head, or the embedding that is the head."""
    name = EMBED_TOKENS if bench.tied else LM_HEAD
    need = bench.need(name)
    if need == "nothing":
        return
    config = bench.config.text
    norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
    norm.weight = nn.Parameter(bench.weight("model.norm.weight"), requires_grad=False)
    moments = InputMoments(num_inputs=config.hidden_size, full=need == "full")
    for x in hidden:
        moments.add(norm(x))
    bench.quantize(name, moments)
