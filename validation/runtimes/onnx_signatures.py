"""Inputs and outputs that transformers.js expects of the three graphs, as data.

Source: what transformers.js 4 feeds and reads. It finds the batch symbol of a cache input by the
name `batch_size`; heads and head dim must be numbers, because an unresolved symbol becomes 0.
Written apart from the exporter's own table, so that one cannot hide the other's mistake.
"""

from typing import Literal

from validation.model_shape import ModelShape
from validation.signature import ANY_SYMBOL, Port, Signature

BATCH = "batch_size"


def vision_encoder_signature(shape: ModelShape) -> Signature:
    """pixel_values [B, 3, S, S] -> image_features [B, T, H], projector included."""
    side = shape.image_size
    features = (BATCH, shape.num_image_tokens, shape.hidden_size)
    return Signature(
        inputs=(Port(name="pixel_values", dtype="float32", dims=(BATCH, 3, side, side)),),
        outputs=(Port(name="image_features", dtype="float32", dims=features),),
    )


def embed_tokens_signature(shape: ModelShape) -> Signature:
    """input_ids [B, L] -> inputs_embeds [B, L, H]."""
    embeds = (BATCH, ANY_SYMBOL, shape.hidden_size)
    return Signature(
        inputs=(Port(name="input_ids", dtype="int64", dims=(BATCH, ANY_SYMBOL)),),
        outputs=(Port(name="inputs_embeds", dtype="float32", dims=embeds),),
    )


def decoder_signature(
    shape: ModelShape, *, logits: Literal["last", "full"], cache_dtype: str = "float32"
) -> Signature:
    """Embeddings, mask, positions and cache in; logits and the longer cache out."""
    cache = (BATCH, shape.num_kv_heads, ANY_SYMBOL, shape.head_dim)
    places = [(n, kind) for n in range(shape.num_layers) for kind in ("key", "value")]
    past, present = (
        tuple(
            Port(name=f"{prefix}.{n}.{kind}", dtype=cache_dtype, dims=cache) for n, kind in places
        )
        for prefix in ("past_key_values", "present")
    )
    embeds = (BATCH, ANY_SYMBOL, shape.hidden_size)
    rows = ANY_SYMBOL if logits == "full" else 1
    return Signature(
        inputs=(
            Port(name="inputs_embeds", dtype="float32", dims=embeds),
            Port(name="attention_mask", dtype="int64", dims=(BATCH, ANY_SYMBOL)),
            Port(name="position_ids", dtype="int64", dims=(BATCH, ANY_SYMBOL)),
            *past,
        ),
        outputs=(
            Port(name="logits", dtype="float32", dims=(BATCH, rows, shape.vocab_size)),
            *present,
        ),
    )
