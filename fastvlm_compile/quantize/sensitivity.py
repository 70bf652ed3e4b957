"""What each tensor's quantization alone does to the next-token distribution.

The loss of a candidate is the mean KL divergence, over the positions of the calibration prompts,
from the float32 model to the model in which one tensor is replaced. Everything before the tensor's
layer is unchanged, so each run starts there; all candidates of one layer go on together, so that a
model that is streamed is read once for them.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.scheme import Quantized, Shape, describe
from fastvlm_compile.quantize.tensor import QuantizedTensor
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.fastvlm import FastVLM
from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.linear import linear
from reference.lockstep import surroundings, through_layers
from reference.streaming import RowsOfTable
from reference.weights import Weights
from validation.progress import Steps

MAX_LOGIT_VALUES = 4_000_000
"""Logits that are compared per prompt, its last positions: 26 of Qwen2's vocabulary."""

QuantizeFunction = Callable[[str, Tensor, Quantized], QuantizedTensor]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A calibration prompt: ids [1, L] with its image tokens, features [N, T, H] of its images."""

    input_ids: Tensor
    image_features: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to store a tensor, and the mean KL that it alone causes, nats a position."""

    scheme: Quantized
    kl_mean: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Of one tensor: its shape, and what each way to store it costs."""

    shape: Shape
    candidates: tuple[Candidate, ...]


Sensitivities = Mapping[str, Sensitivity]
"""By canonical name."""


@torch.inference_mode()
def measure_sensitivity(
    model: FastVLM,
    weights: Weights,
    prompts: Sequence[Prompt],
    *,
    names: Sequence[str],
    schemes: Sequence[Quantized],
    quantize: QuantizeFunction,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> dict[str, Sensitivity]:
    """Quantizes one tensor at a time in every way.

    Args:
        model: float32, streamed or not; it is not changed.
        weights: what it was made from.
        prompts: at least one.
        names: canonical names of tensors of the language model.
        schemes: the ways.
        quantize: canonical name, weight, scheme -> quantized tensor.
        progress: told of every candidate.
        kept: what the tensors of each layer were found to do.
    """
    steps = Steps(progress, len(names) * len(schemes))

    def replacements(name: str) -> Iterator[Tensor]:
        for scheme in schemes:
            steps.begin(f"{describe(scheme)} of {name}")
            quantized = quantize(name, weights.read(name).to(torch.float32), scheme)
            yield torch.from_numpy(quantized.dequantize())

    experiment = _Experiment(model, prompts, weights, replacements)
    candidates: dict[str, tuple[Candidate, ...]] = {}
    for place, together in itertools.groupby(sorted(names, key=layer_of), key=layer_of):
        own = list(together)

        def measure(_: Kept, place: int = place, own: Sequence[str] = own) -> Arrays:
            return {"kl_mean": np.array(list(experiment.at(place, own)), dtype=np.float64)}

        found = kept.arrays(f"layer {place}", measure)["kl_mean"].reshape(len(own), len(schemes))
        for name, row in zip(own, found, strict=True):
            candidates[name] = tuple(
                Candidate(scheme=scheme, kl_mean=float(kl_mean))
                for scheme, kl_mean in zip(schemes, row, strict=True)
            )
    steps.end()
    return {
        name: Sensitivity(shape=tuple(weights.read(name).shape), candidates=candidates[name])
        for name in names
    }


def layer_of(name: str) -> int:
    """The first decoder layer that a tensor can change; -1 for the embedding, and a count beyond
    all layers for what comes after them."""
    if name == EMBED_TOKENS:
        return -1
    match = re.match(r"model\.layers\.(\d+)\.", name)
    return int(match[1]) if match else 1 << 30


class _Experiment:
    """The unchanged model on its way through the layers; at each, changed ones branch off.

    Args:
        model, prompts, weights: see `measure_sensitivity`.
        replacements: of a tensor, the weights that stand in its place, one after the other.
    """

    def __init__(
        self,
        model: FastVLM,
        prompts: Sequence[Prompt],
        weights: Weights,
        replacements: Callable[[str], Iterator[Tensor]],
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._tied = weights.tied
        self._replacements = replacements
        self._probe = Probe(model, prompts)
        self._states = embed(model, prompts)
        self._num_run = 0

    def at(self, place: int, names: Sequence[str]) -> Iterator[float]:
        """The mean KL of each replacement of each tensor.

        Args:
            place: `layer_of` the tensors; never less than before.
            names: of tensors.
        """
        layers = self._model.language.layers
        while self._num_run < min(place, len(layers)):
            self._states = self._through(layers[self._num_run], {})
            self._num_run += 1
        if place < 0:
            yield from self._embedding()
        elif place < len(layers):
            yield from self._in_layer(place, names)
        else:
            for weight in self._replacements(LM_HEAD):
                yield self._probe.kl_mean(self._model, self._states, head=weight)

    def _embedding(self) -> Iterator[float]:
        """One way at a time, for the table is large. A tied one is the head, too."""
        for weight in self._replacements(EMBED_TOKENS):
            language = self._model.language
            unchanged = language.embed_tokens
            language.add_module("embed_tokens", RowsOfTable(weight, weight.dtype))
            try:
                embeds = embed(self._model, self._prompts)
            finally:
                language.add_module("embed_tokens", unchanged)
            states = through_layers(language, embeds)
            head = weight if self._tied else None
            yield self._probe.kl_mean(self._model, states, head=head)

    def _in_layer(self, index: int, names: Sequence[str]) -> Iterator[float]:
        """All at once through the layers that follow."""
        layer = self._model.language.layers[index]
        behind = self._through(layer, {})  # first: a streamed layer is read by a run as it is
        branches = [
            self._through(layer, {name.removeprefix(f"model.layers.{index}."): weight})
            for name in names
            for weight in self._replacements(name)
        ]
        self._states, self._num_run = behind, index + 1
        together = [x for states in branches for x in states]
        last = through_layers(self._model.language, together, first_layer=index + 1)
        count = len(self._prompts)
        for start in range(0, len(last), count):
            yield self._probe.kl_mean(self._model, last[start : start + count])

    def _through(self, layer: nn.Module, changed: Mapping[str, Tensor]) -> list[Tensor]:
        """One layer, with some of its tensors replaced."""
        language = self._model.language
        return [
            functional_call(layer, dict(changed), (x, *surroundings(language, x), None))[0]
            for x in self._states
        ]


class Probe:
    """The distributions of an unchanged model, to compare a changed one with. It is not kept.

    Args:
        model: unchanged.
        prompts: at least one.
    """

    def __init__(self, model: FastVLM, prompts: Sequence[Prompt]) -> None:
        assert prompts, "nothing to measure on"
        states = through_layers(model.language, embed(model, prompts))
        self._expected = [_log_probabilities(model, x, None) for x in states]

    def kl_mean(
        self,
        model: FastVLM,
        states: Sequence[Tensor],
        *,
        head: Tensor | None = None,
    ) -> float:
        """Mean KL(unchanged || changed), nats a position.

        Args:
            model: whose norm and head come after the layers.
            states: of every prompt [1, L, H], what the changed layers gave.
            head: a weight [V, H] that stands for the head's.
        """
        total, count = 0.0, 0
        for x, expected in zip(states, self._expected, strict=True):
            found = _log_probabilities(model, x, head)
            kl = F.kl_div(found, expected, reduction="none", log_target=True)
            # numpy's sum has one order; PyTorch's depends on the number of threads.
            total += max(0.0, float(kl.numpy().sum()))  # rounding may leave -1e-9
            count += len(expected)
        return total / count


def embed(model: FastVLM, prompts: Sequence[Prompt]) -> list[Tensor]:
    """What the first layer is given, [1, L, H] of each prompt."""
    return [model.splice(each.input_ids, each.image_features) for each in prompts]


def _log_probabilities(model: FastVLM, x: Tensor, weight: Tensor | None) -> Tensor:
    """[K, V] of the last K positions of hidden states [1, L, H], by the model's head or another."""
    language = model.language
    count = max(1, MAX_LOGIT_VALUES // language.config.vocab_size)
    states = language.norm(x[0, -count:])
    logits: Tensor = language.lm_head(states) if weight is None else linear(states, weight)
    return F.log_softmax(logits.float(), dim=-1)
