"""The least work of each phase, from the model's config and the bytes of a variant's weights."""

from dataclasses import dataclass

from fastvlm_compile.latency.inputs import Inputs
from fastvlm_compile.latency.subject import Weights
from validation.latency.operations import (
    decoder_operations,
    projector_operations,
    vision_operations,
)
from validation.latency.samples import Work

_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Work by phase."""

    inputs: Inputs
    weights: Weights
    separate_projector: bool

    def vision(self) -> Work:
        """Of the phase `vision`: with the projector where that is part of the graph."""
        tower = self._tower()
        return tower if self.separate_projector else _sum(tower, self._projector())

    def embedding(self) -> Work | None:
        """Looking rows up is no work that bounds anything; the projector is."""
        return self._projector() if self.separate_projector else None

    def append(self, num_new: int, num_past: int) -> Work:
        """The decoder takes in positions behind others, and gives logits of the last."""
        text = self.inputs.config.text
        cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * num_past
        rows = num_new * text.hidden_size * _FLOAT
        return Work(
            bytes_read=self.weights.decoder + cache * self.weights.cache_item + rows,
            operations=decoder_operations(text, num_new=num_new, num_past=num_past),
        )

    def first_token(self) -> Work:
        """Image, projector and the whole prompt."""
        prompt = self.append(self.inputs.num_prompt_positions, 0)
        return _sum(self._tower(), self._projector(), prompt)

    def answer(self, num_tokens: int) -> Work:
        """The first token and those behind it."""
        past = self.inputs.num_prompt_positions
        steps = (self.append(1, past + index) for index in range(num_tokens - 1))
        return _sum(self.first_token(), *steps)

    def _tower(self) -> Work:
        inputs = self.inputs
        return Work(
            bytes_read=self.weights.vision + inputs.pixels.nbytes,
            operations=vision_operations(inputs.config.vision, inputs.contract.image_size),
        )

    def _projector(self) -> Work:
        inputs = self.inputs
        return Work(
            bytes_read=self.weights.projector,
            operations=projector_operations(inputs.config, inputs.contract.tokens_per_image),
        )


def _sum(*works: Work) -> Work:
    return Work(
        bytes_read=sum(work.bytes_read for work in works),
        operations=sum(work.operations for work in works),
    )
