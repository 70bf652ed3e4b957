"""Second moments of a layer's inputs, which tell how much an error of a weight matters.

The output error of a linear layer with weight error E is E H E^T summed over rows, where H is the
mean of x x^T over its inputs x (GPTQ, arXiv 2210.17323, section 3: H without its factor 2).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastvlm_compile.quantize.tensor import Floats

_ROWS_AT_ONCE = 2048
"""Rows that one product takes in float32, which is exact enough; products are summed in float64."""


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
    _num_rows: int = field(init=False, default=0)
    _waiting: list[Tensor] = field(init=False, default_factory=list)
    _num_waiting: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        size = (self.num_inputs,) * (2 if self.full else 1)
        self._sum = torch.zeros(size, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Inputs [..., I] in float32."""
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
        """float32 [I, I], the mean over all inputs."""
        assert self.full, "only the diagonal was gathered"
        self._flush()
        return self._mean(self._sum)

    def importance(self) -> Floats:
        """float32 [I], the diagonal: the mean square of each input."""
        self._flush()
        diagonal = self._sum.diagonal() if self.full else self._sum
        return self._mean(diagonal)

    def _mean(self, total: Tensor) -> Floats:
        assert self._num_rows > 0, "no inputs were seen"
        mean: Floats = (total / self._num_rows).float().numpy()
        return mean

    def _flush(self) -> None:
        if self._waiting:
            rows = torch.cat(self._waiting)
            self._sum += rows.T @ rows
            self._waiting, self._num_waiting = [], 0
