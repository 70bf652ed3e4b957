"""What a decoder package tells whoever opens it in Xcode."""

from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.language.interface import (
    HIDDEN_STATES,
    INPUTS_EMBEDS,
    KEY_CACHE,
    LOGITS,
    NUM_VALID,
    OUTPUT_HIDDEN_STATES,
    POSITION,
    VALUE_CACHE,
    FunctionName,
    interface,
    updated_name,
)
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig, Span
from fastvlm_compile.export.coreml.metadata import METADATA_PREFIX

if TYPE_CHECKING:
    from coremltools.models import MLModel
    from coremltools.proto.Model_pb2 import Model

_FEATURES = {
    INPUTS_EMBEDS: "Embeddings of text and image, one row per position.",
    HIDDEN_STATES: "What the package before this one gave.",
    POSITION: "Place of the first row in the context, from 0.",
    NUM_VALID: "Rows that count, from 1; those behind them are padding.",
    OUTPUT_HIDDEN_STATES: "For the next package.",
    KEY_CACHE: "Keys of all places so far, zeros at first.",
    VALUE_CACHE: "Values of all places so far, zeros at first.",
    updated_name(KEY_CACHE): "The `key_cache` of the next call.",
    updated_name(VALUE_CACHE): "The `value_cache` of the next call.",
    LOGITS: "Of the token after the last row that counts.",
}


def describe_function(
    model: "MLModel", chunk: Chunk, config: DecoderConfig, function: FunctionName
) -> None:
    """Describe inputs and outputs."""
    promised = interface(chunk, config, function)
    for tensor in promised.inputs:
        model.input_description[tensor.name] = _FEATURES[tensor.name]
    for tensor in promised.outputs:
        model.output_description[tensor.name] = _FEATURES[tensor.name]


def describe_package(spec: "Model", chunk: Chunk, config: DecoderConfig) -> None:
    """Describe the package; no author, no date."""
    holds = [_spelled(word, span) for word, span in _parts(chunk) if span is not None]
    metadata = spec.description.metadata
    metadata.shortDescription = (
        f"The language model of FastVLM, {' and '.join(holds)} ({config.precision}); functions "
        f"prefill ({config.prefill_chunk} rows) and decode (1 row) over one cache."
    )
    contract = {
        "context_length": str(config.context_length),
        "cache_length": str(config.cache_length),
        "prefill_chunk": str(config.prefill_chunk),
        "precision": config.precision,
        **{word: _range(span) for word, span in _parts(chunk) if span is not None},
    }
    for key, value in contract.items():
        metadata.userDefined[METADATA_PREFIX + key] = value


def _parts(chunk: Chunk) -> tuple[tuple[str, Span | None], ...]:
    return ("layers", chunk.layers), ("vocabulary", chunk.vocabulary)


def _spelled(word: str, span: Span) -> str:
    return f"{word} {_range(span)}"


def _range(span: Span) -> str:
    return f"{span.first}..{span.first + span.count - 1}"
