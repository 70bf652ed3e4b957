"""How a decoder is cut into packages, and what is fixed in all of them.

Core ML silently keeps a package above about 1 GB off the Neural Engine, and a conversion holds a
package's weights several times over; so layers, and if need be the rows of the output head, are
dealt out to chunks by weight bytes. Each chunk is a package with a state of its own.
"""

from dataclasses import dataclass
from math import ceil

from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.errors import UnsupportedExportError
from reference.config import Qwen2Config

STATE_ALIGNMENT = 32
"""The Neural Engine wants state dimensions in multiples of it; the cache's length is rounded up."""

_STORED_BYTES = 2
"""Of one weight as it ships, float16. Float32 siblings are cut at the same places."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What decides the packages of a decoder.

    Attributes:
        text: the language model.
        tied: the head is the embedding (what the tensors say, not the config).
        context_length: positions of prompt and answer together.
        prefill_chunk: rows T that `prefill` takes; a multiple or a divisor of 32.
        max_chunk_mb: weights of one package, in units of 10^6 bytes as stored in float16.
        precision: of the computation, the stored weights, the cache, inputs and outputs.
    """

    text: Qwen2Config
    tied: bool
    context_length: int
    prefill_chunk: int
    max_chunk_mb: float
    precision: Precision

    @property
    def stateful(self) -> bool:
        """Whether the cache is the package's state: Core ML has states of float16 only.

        In the float32 sibling the cache is an input and an output.
        """
        return self.precision == "float16"

    @property
    def cache_length(self) -> int:
        """Positions the cache has room for: no aligned prefill chunk reaches beyond it."""
        step = max(STATE_ALIGNMENT, self.prefill_chunk)
        return step * ceil(self.context_length / step)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive layers, or rows of the head: `first` .. `first + count - 1`."""

    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One package: layers, then rows of the head; one of them may be missing.

    Attributes:
        number: from 1, in the order of execution.
        layers: none in a chunk that holds only rows of the head.
        vocabulary: tokens whose logits the chunk gives; none in a chunk that ends with a layer.
    """

    number: int
    layers: Span | None
    vocabulary: Span | None

    @property
    def is_first(self) -> bool:
        """Whether its rows come from the prompt, not from another chunk."""
        return self.number == 1


def check_config(config: DecoderConfig) -> None:
    """Refuse sizes no package can have.

    Raises:
        UnsupportedExportError: the context or the prefill chunk does not fit; the message says why.
    """
    limit = config.text.max_position_embeddings
    if not 1 <= config.context_length <= limit:
        raise UnsupportedExportError(
            f"context_length {config.context_length} is not between 1 and the model's {limit}"
        )
    chunk = config.prefill_chunk
    if not 2 <= chunk <= config.context_length:
        raise UnsupportedExportError(
            f"prefill_chunk {chunk} is not between 2 and the context length, "
            f"{config.context_length}"
        )
    if chunk % STATE_ALIGNMENT and STATE_ALIGNMENT % chunk:
        raise UnsupportedExportError(
            f"prefill_chunk {chunk} is neither a multiple nor a divisor of {STATE_ALIGNMENT}",
            hint="64 or 128 serve most devices",
        )


def split(config: DecoderConfig) -> tuple[Chunk, ...]:
    """Layers dealt out in order, each chunk filled before the next; the head comes last.

    Raises:
        UnsupportedExportError: the config is out of range, or one layer alone exceeds a chunk.
    """
    check_config(config)
    limit = int(config.max_chunk_mb * 1_000_000)
    layer = layer_bytes(config.text)
    if layer > limit:
        raise UnsupportedExportError(
            f"max_chunk_mb {config.max_chunk_mb}: one layer alone takes {layer / 1e6:.1f} MB",
            hint=f"give at least {ceil(layer / 1e4) / 100}",
        )
    per_chunk = limit // layer
    total = config.text.num_hidden_layers
    spans = [
        Span(first=first, count=min(per_chunk, total - first))
        for first in range(0, total, per_chunk)
    ]
    pieces: list[tuple[Span | None, Span | None]] = [(span, None) for span in spans]
    last = spans[-1]
    if last.count * layer + head_bytes(config.text) <= limit:
        pieces[-1] = (last, Span(first=0, count=config.text.vocab_size))
    else:
        pieces += [(None, rows) for rows in _head_spans(config.text, limit)]
    return tuple(
        Chunk(number=number, layers=layers, vocabulary=vocabulary)
        for number, (layers, vocabulary) in enumerate(pieces, start=1)
    )


def package_name(chunk: Chunk, num_chunks: int) -> str:
    """`decoder.mlpackage`, or `decoder_2_of_5.mlpackage`."""
    if num_chunks == 1:
        return "decoder.mlpackage"
    return f"decoder_{chunk.number}_of_{num_chunks}.mlpackage"


def chunk_bytes(chunk: Chunk, text: Qwen2Config) -> int:
    """Weights of a chunk in float16."""
    layers = chunk.layers.count if chunk.layers is not None else 0
    rows = chunk.vocabulary.count if chunk.vocabulary is not None else 0
    return layers * layer_bytes(text) + _STORED_BYTES * rows * text.hidden_size


def layer_bytes(text: Qwen2Config) -> int:
    """Weights of one decoder layer in float16."""
    hidden, wide = text.hidden_size, text.intermediate_size
    queries = text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    projections = 2 * hidden * queries + queries + 2 * (hidden * keys + keys)
    return _STORED_BYTES * (projections + 3 * hidden * wide + 2 * hidden)


def head_bytes(text: Qwen2Config) -> int:
    """Weights of the final norm and the output projection in float16."""
    return _STORED_BYTES * (text.vocab_size + 1) * text.hidden_size


def _head_spans(text: Qwen2Config, limit: int) -> list[Span]:
    """The vocabulary in pieces of nearly equal size, each within the limit."""
    num_pieces = ceil(head_bytes(text) / limit)
    rows = ceil(text.vocab_size / num_pieces)
    return [
        Span(first=first, count=min(rows, text.vocab_size - first))
        for first in range(0, text.vocab_size, rows)
    ]
