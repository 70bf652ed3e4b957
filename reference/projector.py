"""The projector: two linear layers with GELU between them (`mlp2x_gelu` of LLaVA)."""

from torch import nn

from reference.linear import Linear


class Projector(nn.Sequential):
    """Vision features to language embeddings: [B, T, C] -> [B, T, H].

    The layers keep LLaVA's indices 0 and 2, under which the checkpoints store them.
    """

    def __init__(self, in_features: int, hidden_size: int) -> None:
        super().__init__(
            Linear(in_features, hidden_size),
            nn.GELU(),
            Linear(hidden_size, hidden_size),
        )
