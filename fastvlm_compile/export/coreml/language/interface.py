"""Inputs, outputs and states of the decoder's packages, and what they mean.

A package has two functions over the same weights and the same state: `prefill` takes T rows at
once, `decode` one. Rows go through the packages in order; each package keeps the keys and values
of its own layers.

| feature | shape | function | meaning |
|---|---|---|---|
| `inputs_embeds` | [1, T or 1, H] | both, first package | embeddings of text, features of images |
| `hidden_states` | [1, T or 1, H] | both, other packages | what the package before gave |
| `position` | int32 [1] | both, packages with layers | place of the first row in the context |
| `num_valid` | int32 [1] | `prefill`, packages with rows of the head | valid rows n, 1 <= n <= T |
| `output_hidden_states` | [1, T or 1, H] | both, packages without the head | for the next one |
| `logits` | [1, 1, rows] | both, packages with the head | after row n - 1; pieces in order |
| `key_cache`, `value_cache` | [layers, G, S, E] | both, packages with layers | the state |

A float32 sibling has no state, as Core ML's are float16: there `key_cache` and `value_cache` are
inputs, zeros at first, and `updated_key_cache` and `updated_value_cache` are outputs for the next
call. Everything else is the same.

A prompt that does not fill its last chunk is padded behind its n valid rows with anything finite;
repeat the last row (a row of zeros has no norm to divide by). Padding never shows: a row sees only
columns up to its own place, which for valid rows are valid, and the keys and values that padding
left in the cache lie at `position + n` and beyond, where the next call (at `position + n`) writes
before anything reads. `position + T <= S` must hold, Core ML does not clamp; where it does not,
take the rest through `decode`. S positions fit, of which `context_length` are promised.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig

FunctionName = Literal["prefill", "decode"]
PREFILL: FunctionName = "prefill"
DECODE: FunctionName = "decode"

INPUTS_EMBEDS = "inputs_embeds"
HIDDEN_STATES = "hidden_states"
OUTPUT_HIDDEN_STATES = "output_hidden_states"
POSITION = "position"
NUM_VALID = "num_valid"
LOGITS = "logits"
KEY_CACHE = "key_cache"
VALUE_CACHE = "value_cache"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input, output or state of a fixed shape; `dtype` as numpy calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What one function takes and gives.

    Attributes:
        length: rows per call.
        inputs: the rows, the numbers, and the cache where it is no state.
        outputs: rows or logits, and the cache where it is no state.
    """

    length: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def interface(chunk: Chunk, config: DecoderConfig, function: FunctionName) -> Interface:
    """Inputs and outputs of a function, in order."""
    length = config.prefill_chunk if function == PREFILL else 1
    hidden = (1, length, config.text.hidden_size)
    rows = INPUTS_EMBEDS if chunk.is_first else HIDDEN_STATES
    numbers = []
    if chunk.layers is not None:
        numbers.append(POSITION)
    if chunk.vocabulary is not None and function == PREFILL:
        numbers.append(NUM_VALID)
    if chunk.vocabulary is None:
        result = Tensor(name=OUTPUT_HIDDEN_STATES, dtype=config.precision, shape=hidden)
    else:
        shape = (1, 1, chunk.vocabulary.count)
        result = Tensor(name=LOGITS, dtype=config.precision, shape=shape)
    passed = () if config.stateful else cache(chunk, config)
    return Interface(
        length=length,
        inputs=(
            Tensor(name=rows, dtype=config.precision, shape=hidden),
            *(Tensor(name=name, dtype="int32", shape=(1,)) for name in numbers),
            *passed,
        ),
        outputs=(result, *(replace(t, name=updated_name(t.name)) for t in passed)),
    )


def cache(chunk: Chunk, config: DecoderConfig) -> tuple[Tensor, ...]:
    """Keys and values of all layers of a chunk in one tensor each: some devices fail on more."""
    if chunk.layers is None:
        return ()
    text = config.text
    shape = (
        chunk.layers.count,
        text.num_key_value_heads,
        config.cache_length,
        text.head_dim,
    )
    return tuple(
        Tensor(name=name, dtype=config.precision, shape=shape) for name in (KEY_CACHE, VALUE_CACHE)
    )


def states(chunk: Chunk, config: DecoderConfig) -> tuple[Tensor, ...]:
    """The cache where it is the package's state."""
    return cache(chunk, config) if config.stateful else ()


def updated_name(name: str) -> str:
    """The output that continues a cache input."""
    return f"updated_{name}"


def are_alike(one: Chunk, other: Chunk, config: DecoderConfig) -> bool:
    """Whether two chunks are one program over different weights: as many layers and tokens, between
    the same features."""
    return _kind(one, config) == _kind(other, config)


def first_alike(chunk: Chunk, chunks: Iterable[Chunk], config: DecoderConfig) -> Chunk:
    """The first of a decoder's chunks that is like this one; maybe the chunk itself."""
    return next(each for each in chunks if are_alike(each, chunk, config))


def _kind(chunk: Chunk, config: DecoderConfig) -> tuple[object, ...]:
    num_layers = 0 if chunk.layers is None else chunk.layers.count
    return (num_layers, interface(chunk, config, PREFILL), interface(chunk, config, DECODE))
