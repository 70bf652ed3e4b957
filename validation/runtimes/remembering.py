"""A runtime that encodes an image once, however often it is compared."""

import hashlib

from reference.decoding import Session
from validation.runtimes.base import Floats, Ids, Runtime


class RememberingRuntime:
    """As the inner runtime; images that were encoded are kept.

    Args:
        runtime: what computes.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._encoded: dict[str, Floats] = {}

    @property
    def executor(self) -> str:
        """The inner runtime's."""
        return self._runtime.executor

    @property
    def executed_by_core_ml(self) -> bool:
        """The inner runtime's."""
        return self._runtime.executed_by_core_ml

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H]; the same pixels give what they gave before."""
        key = f"{pixel_values.shape} {hashlib.sha256(pixel_values.tobytes()).hexdigest()}"
        if key not in self._encoded:
            self._encoded[key] = self._runtime.encode_image(pixel_values)
        return self._encoded[key]

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return self._runtime.embed(input_ids)

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V] or [B, 1, V]."""
        return self._runtime.logits(inputs_embeds)

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        return self._runtime.session(inputs_embeds)
