"""Where the weights of an export come from."""

from collections.abc import Mapping
from typing import Protocol

import torch


class TensorShape(Protocol):
    """What a checkpoint tells of a tensor before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class WeightSource(Protocol):
    """Weights by canonical name: a `Checkpoint`, or a test's dictionary of them."""

    @property
    def tensors(self) -> Mapping[str, TensorShape]: ...

    def read(self, name: str) -> torch.Tensor:
        """The tensor as it is on disk, memory-mapped where it can be."""
        ...
