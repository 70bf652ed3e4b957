"""`mixed`: bits for each tensor of the language model, by measured sensitivity, within a budget."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvlm_compile.quantize.choice import Choice, Method
from fastvlm_compile.quantize.knapsack import Option, cheapest_loss
from fastvlm_compile.quantize.presets import Target
from fastvlm_compile.quantize.scheme import Palette, Quantized
from fastvlm_compile.quantize.sensitivity import (
    Probe,
    Prompt,
    QuantizeFunction,
    Sensitivities,
    embed,
)
from fastvlm_compile.quantize.source import DequantizedRows
from fastvlm_compile.quantize.target_bytes import stored_bytes
from reference.checkpoint.names import EMBED_TOKENS
from reference.config import FastVLMConfig
from reference.loading import build
from reference.lockstep import through_layers
from reference.weights import Rows, Weights


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
    sensitivities: Sensitivities
    bits_per_weight: float
    predicted_kl: float
    measured_kl: float


def choose_mixed(
    sensitivities: Sensitivities, *, target: Target, mean_bits: float
) -> dict[str, Quantized]:
    """The best candidate for each tensor within a mean number of bits.

    Args:
        sensitivities: of every tensor to store.
        target: whose bytes count.
        mean_bits: bits per weight of all these tensors together, at most.

    Raises:
        BudgetError: even the smallest candidates exceed the budget.
    """
    options = {
        name: [
            Option(size_bytes=stored_bytes(target, each.scheme, found.shape), loss=each.kl_mean)
            for each in found.candidates
        ]
        for name, found in sensitivities.items()
    }
    budget_bytes = int(mean_bits * _num_weights(sensitivities) / 8)
    picked = cheapest_loss(options, budget_bytes)
    return {name: sensitivities[name].candidates[index].scheme for name, index in picked.items()}


def describe_policy(
    sensitivities: Sensitivities,
    schemes: Mapping[str, Quantized],
    *,
    target: Target,
    measured_kl: float,
) -> MixedPolicy:
    """A choice with what it costs in bytes and is predicted to cost in loss."""
    size_bytes = sum(
        stored_bytes(target, scheme, sensitivities[name].shape) for name, scheme in schemes.items()
    )
    predicted = (
        next(each.kl_mean for each in sensitivities[name].candidates if each.scheme == scheme)
        for name, scheme in schemes.items()
    )
    return MixedPolicy(
        choices={name: Choice(scheme=s, method=method_of(name, s)) for name, s in schemes.items()},
        sensitivities=sensitivities,
        bits_per_weight=8 * size_bytes / _num_weights(sensitivities),
        predicted_kl=sum(predicted),
        measured_kl=measured_kl,
    )


def _num_weights(sensitivities: Sensitivities) -> int:
    return sum(math.prod(found.shape) for found in sensitivities.values())


def method_of(name: str, scheme: Quantized) -> Method:
    """How a chosen tensor is quantized in the end, as the presets do."""
    if isinstance(scheme, Palette):
        return "clustering"
    return "gptq" if scheme.bits == 4 and name != EMBED_TOKENS else "search"


@torch.inference_mode()
def together(
    probe: Probe,
    weights: Weights,
    prompts: Sequence[Prompt],
    schemes: Mapping[str, Quantized],
    quantize: QuantizeFunction,
) -> float:
    """Mean KL from a model to the one with all these tensors quantized, each when it is to run.

    Args:
        probe: of the unchanged model.
        weights: what that was made from.
        prompts: those of the probe.
        schemes: how tensors of the language model are stored, by canonical name.
        quantize: canonical name, weight, scheme -> quantized tensor.
    """
    on_the_way = QuantizedOnTheWay(weights, schemes, quantize)
    changed = build(on_the_way, resident_bytes=0)
    return probe.kl_mean(changed, through_layers(changed.language, embed(changed, prompts)))


class QuantizedOnTheWay:
    """Weights of which some are quantized when they are read, and dequantized again."""

    def __init__(
        self, weights: Weights, schemes: Mapping[str, Quantized], quantize: QuantizeFunction
    ) -> None:
        self._weights = weights
        self._schemes = schemes
        self._quantize = quantize
        self._embedding: Rows | None = None

    @property
    def config(self) -> FastVLMConfig:
        """The weights'."""
        return self._weights.config

    @property
    def tensors(self) -> Iterable[str]:
        """The weights'."""
        return self._weights.tensors

    @property
    def tied(self) -> bool:
        """The weights'."""
        return self._weights.tied

    def read(self, name: str) -> Tensor:
        """The whole tensor, float32 where it is quantized."""
        return self.rows(name)[:] if name in self._schemes else self._weights.read(name)

    def rows(self, name: str) -> Rows:
        """The tensor by rows. The embedding is quantized once, also where it is the head."""
        if name not in self._schemes:
            return self._weights.rows(name)
        if name != EMBED_TOKENS:
            return self._quantized(name)
        if self._embedding is None:
            self._embedding = self._quantized(name)
        return self._embedding

    def _quantized(self, name: str) -> Rows:
        weight = self._weights.read(name).to(torch.float32)
        return DequantizedRows(self._quantize(name, weight, self._schemes[name]))
