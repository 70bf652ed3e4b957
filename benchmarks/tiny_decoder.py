"""The shipped tiny FastVLM's decoder on rendered scenes: what its linears see, what it answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastvlm_compile.quantize.hessians import InputMoments
from fastvlm_compile.quantize.tensor import Floats
from reference.fastvlm import FastVLM
from reference.loading import load
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt, load_tokenizer
from reference.scenes.scene import Scene
from validation.logit_metrics import LogitMetrics, logit_metrics

CHECKPOINT = Path("recipes/tiny-checkpoint")
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question with its answer: embeddings [L, H], of which the last `num_answer` are answer."""

    embeds: Tensor
    num_answer: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Logits against the reference's: where answers are given, and at every position."""

    answers: LogitMetrics
    everywhere: LogitMetrics


class TinyDecoder:
    """The reference model of a checkpoint, whose decoder's linears can be exchanged."""

    def __init__(self, checkpoint: Path) -> None:
        self._model: FastVLM = load(checkpoint)
        self._tokenizer: PromptTokenizer = load_tokenizer(checkpoint)

    def linears(self) -> dict[str, Floats]:
        """Weights [O, I] of all linears of the decoder, the head included."""
        return {name: module.weight.numpy() for name, module in self._modules()}

    @torch.inference_mode()
    def examples(self, scenes: Iterable[Scene]) -> list[Example]:
        """Every question of every scene, the right answer and end of turn after it."""
        found = []
        end = self._model.config.eos_token_ids[0]
        for scene in scenes:
            config = self._model.config
            pixels = preprocess(
                scene.image, size=config.vision.image_size, fit=config.image_aspect_ratio
            )
            features = self._model.encode_image(torch.from_numpy(pixels)[None])
            for question in scene.questions:
                prompt = build_prompt(question.text, image_position="before")
                asked = encode_prompt(prompt, self._tokenizer, num_images=1)
                answer = [*self._tokenizer.encode(question.answer), end]
                ids = torch.tensor([*asked.tolist(), *answer])[None]
                embeds = self._model.splice(ids, features)[0]
                found.append(Example(embeds=embeds, num_answer=len(answer)))
        return found

    @torch.inference_mode()
    def second_moments(self, examples: Iterable[Example]) -> dict[str, Floats]:
        """Mean x x^T [I, I] of the inputs x of each linear, by name."""
        moments = {
            name: InputMoments(num_inputs=module.in_features, full=True)
            for name, module in self._modules()
        }

        def hook_for(gathered: InputMoments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda _module, inputs: gathered.add(inputs[0])

        hooks = [
            module.register_forward_pre_hook(hook_for(moments[name]))
            for name, module in self._modules()
        ]
        for example in examples:
            self._model.language(example.embeds[None])
        for hook in hooks:
            hook.remove()
        return {name: gathered.hessian() for name, gathered in moments.items()}

    def compare(self, examples: list[Example], reference: list[Floats]) -> Comparison:
        """The decoder as it is now against what `logits` gave before."""
        now = self.logits(examples)
        limit = self._tokenizer.vocab_size
        # The logits that predict the answer stand one position before it.
        spans = [slice(-1 - example.num_answer, -1) for example in examples]
        answers = [
            np.concatenate([rows[span] for rows, span in zip(logits, spans, strict=True)])
            for logits in (reference, now)
        ]
        return Comparison(
            answers=logit_metrics(*answers, vocab_limit=limit),
            everywhere=logit_metrics(
                np.concatenate(reference), np.concatenate(now), vocab_limit=limit
            ),
        )

    @torch.inference_mode()
    def logits(self, examples: list[Example]) -> list[Floats]:
        """Logits [L, V] of each example."""
        found: list[Floats] = []
        for start in range(0, len(examples), _BATCH_SIZE):
            batch = [example.embeds for example in examples[start : start + _BATCH_SIZE]]
            longest = max(len(embeds) for embeds in batch)
            padded = torch.stack([nn.functional.pad(e, (0, 0, longest - len(e), 0)) for e in batch])
            mask = torch.stack([(torch.arange(longest) >= longest - len(e)).long() for e in batch])
            logits, _ = self._model.language(padded, attention_mask=mask)
            found += [
                rows[longest - len(e) :].numpy() for rows, e in zip(logits, batch, strict=True)
            ]
        return found

    @contextmanager
    def with_linears(self, weights: Mapping[str, Floats]) -> Iterator[None]:
        """The decoder with other weights for a while."""
        before = {name: module.weight for name, module in self._modules()}
        try:
            for name, module in self._modules():
                module.weight = nn.Parameter(torch.from_numpy(weights[name]), requires_grad=False)
            yield
        finally:
            for name, module in self._modules():
                module.weight = before[name]

    def _modules(self) -> Iterator[tuple[str, nn.Linear]]:
        for name, module in self._model.language.named_modules():
            if isinstance(module, nn.Linear):
                yield name, module
