"""The sizes that every runtime's inputs and outputs follow from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of one model at one image size.

    Attributes:
        image_size: side S of the square image, pixels.
        num_image_tokens: T, rows that one image becomes.
        vision_channels: C, the tower's output before the projector.
        hidden_size: H.
        vocab_size: V, rows of the embedding, padding included.
        num_layers, num_kv_heads, head_dim: of the KV cache.
    """

    image_size: int
    num_image_tokens: int
    vision_channels: int
    hidden_size: int
    vocab_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
