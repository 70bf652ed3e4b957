"""`mixed`: bits for each tensor of the language model, by measured sensitivity, within a budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.choice import Choice, Method
from fastvlm_compile.quantize.knapsack import Option, cheapest_loss
from fastvlm_compile.quantize.presets import Target
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, Shape
from fastvlm_compile.quantize.sensitivity import (
    Probe,
    Prompt,
    QuantizeFunction,
    Sensitivity,
    measure_sensitivity,
)
from fastvlm_compile.quantize.target_bytes import stored_bytes
from fastvlm_compile.quantize.tensor import QuantizedTensor
from reference.checkpoint.names import EMBED_TOKENS, to_module
from reference.fastvlm import FastVLM


def _affine(bits: int, block_size: int) -> Affine:
    return Affine(bits=8 if bits == 8 else 4, block_size=block_size, symmetric=True)


CANDIDATES: Mapping[Target, tuple[Quantized, ...]] = {
    "onnx": (_affine(4, 128), _affine(4, 64), _affine(4, 32), _affine(8, 128), _affine(8, 64)),
    "coreml": tuple(Palette(bits=bits, group_size=16) for bits in (2, 3, 4, 6, 8)),
    "mlx": (_affine(4, 128), _affine(4, 64), _affine(4, 32), _affine(8, 64)),
}
"""What each target can hold, from small to large. Core ML's are for the Neural Engine: tables."""


@dataclass(frozen=True, kw_only=True)
class MixedPolicy:
    """What was chosen and what is expected of it.

    Attributes:
        choices: by canonical name.
        sensitivities: all that was measured, by canonical name, in the order of the candidates.
        bits_per_weight: of the target's bytes over all these tensors.
        predicted_kl: sum of the chosen sensitivities, nats a position.
        measured_kl: with all of them chosen at once, on the same prompts.
    """

    choices: Mapping[str, Choice]
    sensitivities: Mapping[str, tuple[Sensitivity, ...]]
    bits_per_weight: float
    predicted_kl: float
    measured_kl: float


def choose_mixed(
    model: FastVLM,
    prompts: Sequence[Prompt],
    shapes: Mapping[str, Shape],
    *,
    target: Target,
    mean_bits: float,
    quantize: QuantizeFunction,
    progress: Progress,
) -> MixedPolicy:
    """The best choice of `CANDIDATES` for each tensor within a mean number of bits.

    Args:
        model: float32; unchanged afterwards.
        prompts: calibration.
        shapes: the tensors to store, by canonical name.
        target: whose candidates and bytes count.
        mean_bits: bits per weight of all these tensors together, at most.
        quantize: how a tensor is quantized while its sensitivity is measured.
        progress: told of every candidate.

    Raises:
        BudgetError: even the smallest candidates exceed the budget.
    """
    candidates = dict.fromkeys(shapes, CANDIDATES[target])
    measured = measure_sensitivity(model, prompts, candidates, quantize, progress)
    options = {
        name: [
            Option(size_bytes=stored_bytes(target, each.scheme, shapes[name]), loss=each.kl_mean)
            for each in measured[name]
        ]
        for name in shapes
    }
    num_weights = sum(math.prod(shape) for shape in shapes.values())
    picked = cheapest_loss(options, int(mean_bits * num_weights / 8))
    schemes = {name: measured[name][index].scheme for name, index in picked.items()}
    size_bytes = sum(options[name][index].size_bytes for name, index in picked.items())
    return MixedPolicy(
        choices={name: Choice(scheme=s, method=method_of(name, s)) for name, s in schemes.items()},
        sensitivities=measured,
        bits_per_weight=8 * size_bytes / num_weights,
        predicted_kl=sum(options[name][index].loss for name, index in picked.items()),
        measured_kl=together(model, prompts, schemes, quantize),
    )


def method_of(name: str, scheme: Quantized) -> Method:
    """How a chosen tensor is quantized in the end, as the presets do."""
    if isinstance(scheme, Palette):
        return "clustering"
    return "gptq" if scheme.bits == 4 and name != EMBED_TOKENS else "search"


@torch.inference_mode()
def together(
    model: FastVLM,
    prompts: Sequence[Prompt],
    schemes: Mapping[str, Quantized],
    quantize: QuantizeFunction,
) -> float:
    """Mean KL of the model with all these tensors quantized; the model is unchanged afterwards."""
    probe = Probe(model, prompts)
    originals: dict[str, Tensor] = {}
    try:
        for name, scheme in schemes.items():
            parameter = model.get_parameter(to_module(name))
            originals[name] = parameter.data
            tensor: QuantizedTensor = quantize(name, parameter.data, scheme)
            parameter.data = torch.from_numpy(tensor.dequantize())
        return probe.kl_mean(first_layer=-1)
    finally:
        for name, original in originals.items():
            model.get_parameter(to_module(name)).data = original
