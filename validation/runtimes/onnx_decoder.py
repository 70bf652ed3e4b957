"""The `decoder_model_merged` graph: one call per step, the KV cache as arrays between them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reference.decoding import Logits
from validation.runtimes.base import Floats, Ids
from validation.runtimes.onnx_graph import GraphError, OnnxGraph

Cache = dict[str, np.ndarray]
"""`past_key_values.N.{key,value}` -> [B, kv heads, P, head dim]."""


@dataclass(frozen=True, kw_only=True)
class DecoderOutput:
    """Logits float32 [B, L, V] or [B, 1, V], and the cache after this call."""

    logits: Floats
    cache: Cache


class NotADecoderError(GraphError):
    """The graph has no cache that could be used."""


class OnnxDecoder:
    """Runs the decoder; the cache's layout is read from the graph itself.

    Raises:
        NotADecoderError: the graph is not a decoder with a cache of fixed heads and head dimension.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self._cache_ports = [
            port
            for port in graph.signature.inputs
            if re.fullmatch(r"past_key_values\.\d+\.(key|value)", port.name)
        ]
        if not self._cache_ports:
            raise NotADecoderError(
                f"{graph.path.name}: no past_key_values.N.key inputs: not a decoder"
            )
        for port in self._cache_ports:
            if len(port.dims) != 4 or not all(isinstance(port.dims[i], int) for i in (1, 3)):
                raise NotADecoderError(
                    f"{graph.path.name}: {port}: expected [batch_size, heads, past, head dim] "
                    "with numbers for heads and head dim"
                )

    def empty_cache(self, batch_size: int) -> Cache:
        """A cache of no positions."""
        return {
            port.name: np.zeros(
                (batch_size, int(port.dims[1]), 0, int(port.dims[3])), dtype=port.dtype
            )
            for port in self._cache_ports
        }

    def run(
        self, *, inputs_embeds: Floats, attention_mask: Ids, position_ids: Ids, cache: Cache
    ) -> DecoderOutput:
        """Appends L positions to a cache of P.

        Args:
            inputs_embeds: [B, L, H].
            attention_mask: [B, P + L], 1 for positions that may be looked at.
            position_ids: [B, L].
            cache: from `empty_cache` or an earlier call.

        Raises:
            GraphError: onnxruntime refuses, or an output is missing.
        """
        outputs = self.graph.run(
            {
                "inputs_embeds": inputs_embeds,
                "attention_mask": attention_mask,
                "position_ids": position_ids,
                **cache,
            }
        )
        try:
            logits = outputs["logits"].astype(np.float32, copy=False)
            present = {name: outputs[_present(name)] for name in cache}
        except KeyError as error:
            raise GraphError(f"{self.graph.path.name}: there is no output {error}") from None
        return DecoderOutput(logits=logits, cache=present)

    def append(self, inputs_embeds: Floats, cache: Cache) -> DecoderOutput:
        """`run` where nothing is padded: positions go on from the cache's length."""
        batch_size, length = inputs_embeds.shape[:2]
        past = cache_length(cache)
        positions = np.arange(past, past + length, dtype=np.int64)
        return self.run(
            inputs_embeds=inputs_embeds,
            attention_mask=np.ones((batch_size, past + length), dtype=np.int64),
            position_ids=np.broadcast_to(positions, (batch_size, length)),
            cache=cache,
        )


def cache_length(cache: Cache) -> int:
    """P, the number of positions in a cache."""
    return int(next(iter(cache.values())).shape[2])


def _present(past_name: str) -> str:
    return past_name.replace("past_key_values.", "present.", 1)


class OnnxSession:
    """A `Session` over the decoder graph.

    Args:
        decoder: the graph.
        embed: token ids [B, L] -> embeddings [B, L, H].
        inputs_embeds: the prompt [1, L, H].
    """

    def __init__(
        self, decoder: OnnxDecoder, embed: Callable[[Ids], Floats], inputs_embeds: Floats
    ) -> None:
        self._decoder = decoder
        self._embed = embed
        self._prompt = inputs_embeds
        self._cache = decoder.empty_cache(inputs_embeds.shape[0])

    def start(self) -> Logits:
        """Runs the prompt: logits after it, float32 [1, V]."""
        return self._append(self._prompt)

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, [B]; the next logits, float32 [B, V]."""
        return self._append(self._embed(token_ids[:, None]))

    def select(self, rows: Ids) -> None:
        """Row i of the cache becomes row `rows[i]`."""
        self._cache = {name: array[rows] for name, array in self._cache.items()}

    def _append(self, inputs_embeds: Floats) -> Logits:
        output = self._decoder.append(inputs_embeds, self._cache)
        self._cache = output.cache
        return output.logits[:, -1]
