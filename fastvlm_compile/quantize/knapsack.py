"""One option for each tensor, at the smallest total loss that a budget of bytes allows.

The multiple-choice knapsack problem, solved by dynamic programming over bytes (Kellerer, Pferschy
and Pisinger, Knapsack Problems, 2004, chapter 11). Greedy choices by loss per byte miss the optimum
where one large tensor competes with many small ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reference.errors import UserError

MAX_STATES = 1 << 16
"""Sizes that are told apart. With more distinct ones, sizes are rounded up to a multiple of what is
left, so that a solution never exceeds the budget and wastes less than one such step a tensor."""


class BudgetError(UserError):
    """No choice of options fits."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to store a tensor: its bytes, and the loss that it is expected to cause."""

    size_bytes: int
    loss: float


def cheapest_loss(options: Mapping[str, Sequence[Option]], budget_bytes: int) -> dict[str, int]:
    """The index of the option of each tensor, total loss smallest within the budget.

    Args:
        options: at least one a tensor; losses are finite.
        budget_bytes: of all tensors together.

    Raises:
        BudgetError: the smallest options together exceed the budget.
    """
    return _solve(options, budget_bytes).best()


def fewest_bytes(options: Mapping[str, Sequence[Option]], max_loss: float) -> dict[str, int]:
    """The index of the option of each tensor, total bytes smallest at no more than this loss.

    Raises:
        BudgetError: even the best options lose more.
    """
    largest = sum(max(option.size_bytes for option in each) for each in options.values())
    table = _solve(options, largest)
    enough = np.flatnonzero(table.loss <= max_loss)
    if enough.size == 0:
        least = sum(min(option.loss for option in each) for each in options.values())
        raise BudgetError(
            f"the best options lose {least:.3g}, the floor asks for {max_loss:.3g}",
            hint="allow a larger loss, or offer options of more bits",
        )
    return table.at(int(enough[0]))


@dataclass(frozen=True, kw_only=True)
class _Table:
    """`loss[c]` is the smallest total loss at c steps above the smallest sizes."""

    names: tuple[str, ...]
    steps: Mapping[str, Sequence[int]]
    loss: npt.NDArray[np.float64]
    chosen: npt.NDArray[np.uint8]
    """[tensors, states]: the option of each tensor in the best solution of a state."""

    def best(self) -> dict[str, int]:
        """The solution of the whole budget."""
        return self.at(len(self.loss) - 1)

    def at(self, state: int) -> dict[str, int]:
        """The solution of one state."""
        found = {}
        for row in reversed(range(len(self.names))):
            name = self.names[row]
            found[name] = int(self.chosen[row, state])
            state -= self.steps[name][found[name]]
        return dict(reversed(found.items()))


def _solve(options: Mapping[str, Sequence[Option]], budget_bytes: int) -> _Table:
    smallest = {name: min(o.size_bytes for o in each) for name, each in options.items()}
    least = sum(smallest.values())
    if least > budget_bytes:
        raise BudgetError(
            f"the smallest options have {least} bytes together, the budget is {budget_bytes}",
            hint="allow more bits per weight, or offer options of fewer",
        )
    extras = {
        name: [option.size_bytes - smallest[name] for option in each]
        for name, each in options.items()
    }
    room = min(budget_bytes - least, sum(max(each) for each in extras.values()))
    unit = _unit([extra for each in extras.values() for extra in each], room)
    steps = {name: [-(-extra // unit) for extra in each] for name, each in extras.items()}
    num_states = room // unit + 1
    loss = np.zeros(num_states)
    chosen = np.zeros((len(options), num_states), dtype=np.uint8)
    for row, (name, each) in enumerate(options.items()):
        loss, chosen[row] = _add(loss, steps[name], [option.loss for option in each])
    return _Table(names=tuple(options), steps=steps, loss=loss, chosen=chosen)


def _unit(extras: Sequence[int], room: int) -> int:
    """Bytes of one step: exact where the sizes have a large enough common divisor."""
    divisor = math.gcd(*extras) or 1
    return max(1, -(-room // (divisor * MAX_STATES))) * divisor


def _add(
    before: npt.NDArray[np.float64], steps: Sequence[int], losses: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """One more tensor: the best loss of each state and the option that gives it."""
    best = np.full_like(before, np.inf)
    chosen = np.zeros(len(before), dtype=np.uint8)
    for index, (step, loss) in enumerate(zip(steps, losses, strict=True)):
        if step >= len(before):
            continue
        reached = before[: len(before) - step] + loss
        better = reached < best[step:]
        best[step:][better] = reached[better]
        chosen[step:][better] = index
    return best, chosen
