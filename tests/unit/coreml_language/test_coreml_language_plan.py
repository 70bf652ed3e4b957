"""A decoder is cut into packages that respect the limit and leave nothing out."""

from math import prod

import pytest
from coreml_language_helpers import decoder_config

from fastvlm_compile.export.coreml.language.plan import (
    Chunk,
    Span,
    head_bytes,
    layer_bytes,
    package_name,
    split,
)
from fastvlm_compile.export.errors import UnsupportedExportError
from reference.checkpoint.tensors import Checkpoint
from reference.config import Qwen2Config

QWEN2_7B = Qwen2Config(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    max_position_embeddings=32768,
    tie_word_embeddings=False,
)


def test_a_decoder_within_the_limit_is_one_package(checkpoint: Checkpoint) -> None:
    (chunk,) = split(decoder_config(checkpoint))
    assert chunk.layers == Span(first=0, count=2)
    assert chunk.vocabulary == Span(first=0, count=800)
    assert package_name(chunk, 1) == "decoder.mlpackage"


def test_layer_and_head_bytes_are_those_of_the_checkpoint(checkpoint: Checkpoint) -> None:
    def stored(prefix: str) -> int:
        infos = checkpoint.tensors.items()
        return 2 * sum(prod(info.shape) for name, info in infos if name.startswith(prefix))

    assert layer_bytes(checkpoint.config.text) == stored("model.layers.0.")
    assert head_bytes(checkpoint.config.text) == stored("lm_head.") + stored("model.norm.")


@pytest.mark.parametrize("max_chunk_mb", [500, 1000, 1100, 4000, 20000])
def test_every_layer_and_token_of_a_7b_is_in_one_package_within_the_limit(
    checkpoint: Checkpoint, max_chunk_mb: int
) -> None:
    config = decoder_config(checkpoint, text=QWEN2_7B, max_chunk_mb=max_chunk_mb)
    chunks = split(config)
    for wanted, spans in (
        (28, [chunk.layers for chunk in chunks]),
        (152064, [chunk.vocabulary for chunk in chunks]),
    ):
        covered = [i for span in spans if span for i in range(span.first, span.first + span.count)]
        assert covered == list(range(wanted))
    for chunk in chunks:
        layers = chunk.layers.count if chunk.layers else 0
        rows = chunk.vocabulary.count + 1 if chunk.vocabulary else 0
        size = layers * layer_bytes(QWEN2_7B) + rows * 2 * QWEN2_7B.hidden_size
        assert 0 < size <= max_chunk_mb * 1e6
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))


def test_the_sibling_is_cut_where_the_packages_that_ship_are(checkpoint: Checkpoint) -> None:
    shipped = decoder_config(checkpoint, text=QWEN2_7B, max_chunk_mb=1000, precision="float16")
    sibling = decoder_config(checkpoint, text=QWEN2_7B, max_chunk_mb=1000, precision="float32")
    assert split(shipped) == split(sibling)


def test_packages_of_a_split_decoder_are_numbered() -> None:
    chunk = Chunk(number=2, layers=Span(first=3, count=3), vocabulary=None)
    assert package_name(chunk, 5) == "decoder_2_of_5.mlpackage"
    assert not chunk.is_first


@pytest.mark.parametrize(
    ("context_length", "prefill_chunk", "cache_length"),
    [(100, 8, 128), (128, 64, 128), (200, 64, 256), (32, 32, 32), (33, 2, 64)],
)
def test_aligned_prefill_chunks_never_reach_beyond_the_cache(
    checkpoint: Checkpoint, context_length: int, prefill_chunk: int, cache_length: int
) -> None:
    config = decoder_config(checkpoint, context_length=context_length, prefill_chunk=prefill_chunk)
    assert config.cache_length == cache_length
    assert cache_length % 32 == 0
    starts = range(0, context_length, prefill_chunk)
    assert all(start + prefill_chunk <= cache_length for start in starts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_length": 0}, "context_length 0 is not between 1 and the model's 512"),
        ({"context_length": 513}, "context_length 513 is not between"),
        ({"prefill_chunk": 1}, "prefill_chunk 1 is not between 2 and the context length, 100"),
        ({"prefill_chunk": 128}, "prefill_chunk 128 is not between"),
        ({"prefill_chunk": 48}, "48 is neither a multiple nor a divisor of 32"),
        ({"max_chunk_mb": 0.05}, "max_chunk_mb 0.05: one layer alone takes 0.1 MB"),
    ],
)
def test_sizes_that_no_package_can_have_are_refused(
    checkpoint: Checkpoint, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UnsupportedExportError, match=message):
        split(decoder_config(checkpoint, **changes))


def test_the_hint_names_a_limit_that_works(checkpoint: Checkpoint) -> None:
    with pytest.raises(UnsupportedExportError) as refusal:
        split(decoder_config(checkpoint, max_chunk_mb=0.05))
    enough = float(refusal.value.hint.removeprefix("give at least "))
    assert len(split(decoder_config(checkpoint, max_chunk_mb=enough))) == 4
