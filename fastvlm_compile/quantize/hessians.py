"""Second moments of a layer's inputs, which tell how much an error of a weight matters.

The output error of a linear layer with weight error E is E H E^T summed over rows, where H is the
mean of x x^T over its inputs x (GPTQ, arXiv 2210.17323, section 3: H without its factor 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastvlm_compile.quantize.gptq_rows import InputRows
from fastvlm_compile.quantize.tensor import Floats

_ROWS_AT_ONCE = 2048
"""Rows that one product takes in float32, which is exact enough; products are summed in float64."""

_ROWS_OF_SUM = 1024


@dataclass(kw_only=True)
class InputMoments:
    """Gathers mean x x^T of inputs x, or its diagonal alone, which costs far less.

    Few inputs are kept as they are (`InputRows`): the matrix of a 7B's widest layer takes 1.4 GB.

    Attributes:
        num_inputs: I, the size of an x.
        full: whether the whole matrix is gathered.
    """

    num_inputs: int
    full: bool
    _sum: Tensor | None = field(init=False, default=None)
    _mean: Tensor | None = field(init=False, default=None)
    _num_rows: int = field(init=False, default=0)
    _waiting: list[Tensor] = field(init=False, default_factory=list)
    _num_waiting: int = field(init=False, default=0)

    def add(self, x: Tensor) -> None:
        """Inputs [..., I] in float32."""
        assert self._mean is None, "the mean has been asked for"
        rows = x.detach().reshape(-1, self.num_inputs)
        self._num_rows += len(rows)
        if not self.full:
            self._add(rows.double().square().sum(0))
            return
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        if self._num_waiting >= _ROWS_AT_ONCE and not self._are_few():
            self._flush()

    def second_moments(self) -> Floats | InputRows:
        """What `gptq` rounds by, of all inputs so far."""
        assert self.full, "only the diagonal was gathered"
        if not self._are_few():
            return self.hessian()
        rows = self._rows()
        return InputRows(rows=(rows / len(rows) ** 0.5).numpy())

    def hessian(self) -> Floats:
        """float32 [I, I], the mean over all inputs: from now on there is no more, and no less.

        The sums are given up for it, which take twice the memory.
        """
        assert self.full, "only the diagonal was gathered"
        if self._mean is None:
            self._flush()
            total = self._total()
            self._mean = torch.empty(total.shape, dtype=torch.float32)
            for block in _blocks(self.num_inputs):
                self._mean[block] = self._averaged(total[block])
            self._sum = None
        mean: Floats = self._mean.numpy()
        return mean

    def importance(self) -> Floats:
        """float32 [I], the diagonal: the mean square of each input."""
        if self._mean is not None:
            means = self._mean.diagonal().contiguous()
        elif self.full and self._are_few():
            means = self._averaged(self._rows().double().square().sum(0))
        else:
            self._flush()
            total = self._total()
            means = self._averaged(total.diagonal() if self.full else total)
        importance: Floats = means.numpy()
        return importance

    def _are_few(self) -> bool:
        """Whether the inputs are still all there, and so few that they are better kept."""
        return 0 < self._num_rows == self._num_waiting and InputRows.is_shorter(
            self._num_rows, self.num_inputs
        )

    def _rows(self) -> Tensor:
        if len(self._waiting) > 1:
            self._waiting = [torch.cat(self._waiting)]
        return self._waiting[0]

    def _averaged(self, total: Tensor) -> Tensor:
        return (total / self._num_rows).float()

    def _total(self) -> Tensor:
        assert self._sum is not None, "no inputs were seen"
        return self._sum

    def _add(self, squares: Tensor) -> None:
        self._sum = squares if self._sum is None else self._sum.add_(squares)

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = self._rows()
        if self._sum is None:
            self._sum = torch.zeros((self.num_inputs, self.num_inputs), dtype=torch.float64)
        for block in _blocks(self.num_inputs):
            self._sum[block] += rows[:, block].T @ rows
        self._waiting, self._num_waiting = [], 0


def _blocks(size: int) -> Iterator[slice]:
    """Rows of a square matrix, so few that what is made of them is small beside it."""
    for start in range(0, size, _ROWS_OF_SUM):
        yield slice(start, start + _ROWS_OF_SUM)
