"""A runtime that encodes an image once, however often it is compared."""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from reference.decoding import Session
from reference.kept import NOTHING_KEPT, Kept
from validation.runtimes.base import Floats, Ids, Runtime


class RememberingRuntime:
    """As the inner runtime; images that were encoded are kept.

    Args:
        runtime: what computes.
        kept: images and logits of earlier runs of the same runtime.
    """

    def __init__(self, runtime: Runtime, kept: Kept = NOTHING_KEPT) -> None:
        self._runtime = runtime
        self._kept = kept
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
        key = _key("image", pixel_values)
        if key not in self._encoded:
            self._encoded[key] = self._once(key, self._runtime.encode_image, pixel_values)
        return self._encoded[key]

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return self._runtime.embed(input_ids)

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V] or [B, 1, V]."""
        return self._once(_key("logits", inputs_embeds), self._runtime.logits, inputs_embeds)

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        return self._runtime.session(inputs_embeds)

    def _once(self, key: str, compute: Callable[[Floats], Floats], given: Floats) -> Floats:
        def run(_: Kept) -> Mapping[str, Floats]:
            return {"result": np.ascontiguousarray(compute(given))}

        result: Floats = self._kept.arrays(key, run)["result"]
        return result


def _key(what: str, given: Floats) -> str:
    shape = "x".join(map(str, given.shape))
    return f"{what} {shape} {hashlib.sha256(given.tobytes()).hexdigest()}"
