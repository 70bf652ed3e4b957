"""A training-only head that names what stands at each place: the tower learns to see early."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.scenes.layout import Layout
from reference.scenes.vocabulary import COLOURS, PLACES, SHAPES

_NOTHING = 0
# Classes: shape and colour at each of the five places, place of the number, its two digits.
_GROUPS = (
    *(len(SHAPES) + 1,) * len(PLACES),
    *(len(COLOURS) + 1,) * len(PLACES),
    len(PLACES) + 1,
    11,
    11,
)


def labels(layout: Layout) -> npt.NDArray[np.int64]:
    """One class per group, 0 for nothing there."""
    by_place = {item.place: item for item in layout.items}
    shapes = [
        SHAPES.index(by_place[place].shape) + 1 if place in by_place else _NOTHING
        for place in PLACES
    ]
    colours = [
        list(COLOURS).index(by_place[place].colour) + 1 if place in by_place else _NOTHING
        for place in PLACES
    ]
    number = [_NOTHING] * 3
    if layout.number is not None:
        tens, ones = divmod(layout.number.value, 10)
        number = [list(PLACES).index(layout.number.place) + 1, tens + 1, ones + 1]
    return np.asarray([*shapes, *colours, *number])


class AuxiliaryHead(nn.Module):
    """All tokens of an image -> logits of all groups; dropped when the checkpoint is saved."""

    def __init__(self, *, num_tokens: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.linear = nn.Linear(num_tokens * hidden_size, sum(_GROUPS))

    def forward(self, projected: Tensor) -> Tensor:
        """[B, T, H] -> [B, classes of all groups]."""
        logits: Tensor = self.linear(self.norm(projected).flatten(1))
        return logits


def auxiliary_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy over the groups; targets are [B, groups]."""
    losses, hits = [], []
    for index, group in enumerate(torch.split(logits.float(), list(_GROUPS), dim=1)):
        losses.append(F.cross_entropy(group, targets[:, index]))
        hits.append((group.argmax(1) == targets[:, index]).float().mean())
    return torch.stack(losses).mean(), torch.stack(hits).mean()
