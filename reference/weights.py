"""What a model's weights are read from: a checkpoint, or what stands for one."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from reference.config import FastVLMConfig


class Rows(Protocol):
    """A tensor [O, ...] whose rows are read when they are asked for; a mapped `Tensor` is one."""

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """The rows of a slice, or of ids of any shape, as a tensor has them."""
        ...


class Weights(Protocol):
    """A `Checkpoint`, or what stands for one."""

    @property
    def config(self) -> FastVLMConfig: ...

    @property
    def tensors(self) -> Iterable[str]:
        """Canonical names."""
        ...

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor by canonical name."""
        ...

    def rows(self, name: str) -> Rows:
        """The same tensor, of which a part can be read without the rest."""
        ...
