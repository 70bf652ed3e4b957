"""Second moments of a layer's inputs, which tell how much an error of a weight matters.

The output error of a linear layer with weight error E is E H E^T summed over rows, where H is the
mean of x x^T over its inputs x (GPTQ, arXiv 2210.17323, section 3: H without its factor 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastvlm_compile.quantize.tensor import Floats

_ROWS_AT_ONCE = 2048
"""Rows that one product takes in float32, which is exact enough; products are summed in float64."""

_ROWS_OF_SUM = 1024


@dataclass(kw_only=True)
class InputMoments:
    """Gathers mean x x^T of inputs x, or its diagonal alone, which costs far less.

    Attributes:
        num_inputs: I, the size of an x.
        full: whether the whole matrix is gathered.
    """

    num_inputs: int
    full: bool
    _sum: Tensor = field(init=False)
    _mean: Tensor | None = field(init=False, default=None)
    _num_rows: int = field(init=False, default=0)
    _waiting: list[Tensor] = field(init=False, default_factory=list)
    _num_waiting: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        size = (self.num_inputs,) * (2 if self.full else 1)
        self._sum = torch.zeros(size, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Inputs [..., I] in float32."""
        assert self._mean is None, "the mean has been asked for"
        rows = x.detach().reshape(-1, self.num_inputs)
        self._num_rows += len(rows)
        if not self.full:
            self._sum += rows.double().square().sum(0)
            return
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        if self._num_waiting >= _ROWS_AT_ONCE:
            self._flush()

    def hessian(self) -> Floats:
        """float32 [I, I], the mean over all inputs: from now on there is no more, and no less.

        The sums are given up for it, which take twice the memory.
        """
        assert self.full, "only the diagonal was gathered"
        if self._mean is None:
            self._flush()
            self._mean = torch.empty(self._sum.shape, dtype=torch.float32)
            for block in _blocks(self.num_inputs):
                self._mean[block] = self._averaged(self._sum[block])
            self._sum = torch.empty(0)
        mean: Floats = self._mean.numpy()
        return mean

    def importance(self) -> Floats:
        """float32 [I], the diagonal: the mean square of each input."""
        self._flush()
        if self._mean is not None:
            means = self._mean.diagonal().contiguous()
        else:
            means = self._averaged(self._sum.diagonal() if self.full else self._sum)
        importance: Floats = means.numpy()
        return importance

    def _averaged(self, total: Tensor) -> Tensor:
        assert self._num_rows > 0, "no inputs were seen"
        return (total / self._num_rows).float()

    def _flush(self) -> None:
        if self._waiting:
            rows = torch.cat(self._waiting)
            for block in _blocks(self.num_inputs):
                self._sum[block] += rows[:, block].T @ rows
            self._waiting, self._num_waiting = [], 0


def _blocks(size: int) -> Iterator[slice]:
    """Rows of a square matrix, so few that what is made of them is small beside it."""
    for start in range(0, size, _ROWS_OF_SUM):
        yield slice(start, start + _ROWS_OF_SUM)
