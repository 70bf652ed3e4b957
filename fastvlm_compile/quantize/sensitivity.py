"""What each tensor's quantization alone does to the next-token distribution.

The loss of a candidate is the mean KL divergence, over the positions of the calibration prompts,
from the float32 model to the model in which one tensor is replaced. Everything before the tensor's
layer is unchanged, so each run starts there, from kept hidden states.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.scheme import Quantized, Shape, describe
from fastvlm_compile.quantize.tensor import QuantizedTensor
from reference.checkpoint.names import EMBED_TOKENS, to_module
from reference.fastvlm import FastVLM
from reference.qwen2 import attention_bias, rotary_embedding
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
    prompts: Sequence[Prompt],
    *,
    names: Sequence[str],
    schemes: Sequence[Quantized],
    quantize: QuantizeFunction,
    progress: Progress,
) -> dict[str, Sensitivity]:
    """Quantizes one tensor at a time in every way.

    Args:
        model: float32; unchanged afterwards.
        prompts: at least one.
        names: canonical names of tensors of the language model.
        schemes: the ways.
        quantize: canonical name, weight, scheme -> quantized tensor.
        progress: told of every candidate.
    """
    probe = Probe(model, prompts)
    steps = Steps(progress, len(names) * len(schemes))
    found = {}
    for name in names:
        parameter = model.get_parameter(to_module(name))
        original = parameter.data
        candidates = []
        for scheme in schemes:
            steps.begin(f"{describe(scheme)} of {name}")
            parameter.data = torch.from_numpy(quantize(name, original, scheme).dequantize())
            kl_mean = probe.kl_mean(first_layer=layer_of(name))
            parameter.data = original
            candidates.append(Candidate(scheme=scheme, kl_mean=kl_mean))
        found[name] = Sensitivity(shape=tuple(original.shape), candidates=tuple(candidates))
    steps.end()
    return found


def layer_of(name: str) -> int:
    """The first decoder layer that a tensor can change; -1 for the embedding, and a count beyond
    all layers for what comes after them."""
    if name == EMBED_TOKENS:
        return -1
    match = re.match(r"model\.layers\.(\d+)\.", name)
    return int(match[1]) if match else 1 << 30


class Probe:
    """The prompts with everything about the unchanged model that a changed one is compared with.

    Args:
        model: whose language model will be changed in place between calls of `kl_mean`.
        prompts: at least one.
    """

    def __init__(self, model: FastVLM, prompts: Sequence[Prompt]) -> None:
        assert prompts, "nothing to measure on"
        self._model = model
        self._prompts = prompts
        self._states = [self._hidden_states(prompt) for prompt in prompts]
        self._expected = [self._log_probabilities(states[-1]) for states in self._states]

    @torch.inference_mode()
    def kl_mean(self, *, first_layer: int) -> float:
        """Mean KL(unchanged || as it is now), nats a position.

        Args:
            first_layer: nothing before this layer has changed; -1 if the embedding has.
        """
        total, count = 0.0, 0
        for prompt, states, expected in zip(
            self._prompts, self._states, self._expected, strict=True
        ):
            x = (
                self._embed(prompt)
                if first_layer < 0
                else states[min(first_layer, len(states) - 1)]
            )
            *_, last = self._run(x, max(first_layer, 0))
            found = self._log_probabilities(last)
            kl = F.kl_div(found, expected, reduction="none", log_target=True)
            # numpy's sum has one order; PyTorch's depends on the number of threads.
            total += max(0.0, float(kl.numpy().sum()))  # rounding may leave -1e-9
            count += len(expected)
        return total / count

    def _embed(self, prompt: Prompt) -> Tensor:
        return self._model.splice(prompt.input_ids, prompt.image_features)

    def _hidden_states(self, prompt: Prompt) -> list[Tensor]:
        return self._run(self._embed(prompt), 0)

    def _run(self, x: Tensor, first_layer: int) -> list[Tensor]:
        """Hidden states [1, L, H] before layer `first_layer`, and after it and every later one."""
        language = self._model.language
        length = x.shape[1]
        rotary = rotary_embedding(torch.arange(length)[None], language.config)
        bias = attention_bias(torch.ones(1, length, dtype=torch.long), length, x.dtype)
        states = [x]
        for layer in language.layers[first_layer:]:
            x, _ = layer(x, rotary, bias, None)
            states.append(x)
        return states

    def _log_probabilities(self, x: Tensor) -> Tensor:
        """[K, V] of the last K positions."""
        language = self._model.language
        count = max(1, MAX_LOGIT_VALUES // language.config.vocab_size)
        logits: Tensor = language.lm_head(language.norm(x[0, -count:]))
        return F.log_softmax(logits.float(), dim=-1)
