"""An answer is right where every token is the best one in its place, or as good as the best."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from reference.decoding import Ids, Logits
from validation.consumers.following import follow

_END = 7
_BEST = ((0.0, 1.0, 5.0, 4.999), (3.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))


@dataclass
class _Table:
    """Logits of 8 tokens after 0, 1, 2 tokens; the last place ends the turn."""

    steps: list[int] = field(default_factory=list)

    def start(self) -> Logits:
        return self._row()

    def step(self, token_ids: Ids) -> Logits:
        self.steps += token_ids.tolist()
        return self._row()

    def select(self, rows: Ids) -> None:
        raise AssertionError(rows)

    def _row(self) -> Logits:
        row = np.zeros((1, 8), dtype=np.float32)
        row[0, :4] = _BEST[len(self.steps)]
        row[0, _END] = 9.0 if len(self.steps) == 2 else -1.0
        return row


@pytest.mark.parametrize("answer", [(2, 0), (2, 0, _END)])
def test_the_best_tokens_have_no_gap_with_their_end_or_without(answer: tuple[int, ...]) -> None:
    table = _Table()
    found = follow(table, answer, max_new_tokens=5, eos_token_ids=(_END,))
    assert (found.num_tokens, found.num_best, found.worst_gap) == (3, 3, 0.0)
    assert table.steps == [2, 0]


def test_a_near_tie_is_told_in_standard_deviations() -> None:
    found = follow(_Table(), (3, 0), max_new_tokens=2, eos_token_ids=(_END,))
    assert (found.num_tokens, found.num_best) == (2, 1)
    row = np.array([*_BEST[0], 0.0, 0.0, 0.0, -1.0])
    assert found.worst_gap == pytest.approx(0.001 / row.std(), rel=1e-3)


@pytest.mark.parametrize("answer", [(2, 1), (1, 0), (2,), (2, 0, 4)])
def test_another_token_or_another_end_is_far_below(answer: tuple[int, ...]) -> None:
    found = follow(_Table(), answer, max_new_tokens=5, eos_token_ids=(_END,))
    assert found.worst_gap > 1


@pytest.mark.parametrize("answer", [(), (2, 8), (-1,)])
def test_no_answer_and_no_token_are_infinitely_wrong(answer: tuple[int, ...]) -> None:
    found = follow(_Table(), answer, max_new_tokens=5, eos_token_ids=(_END,))
    assert math.isinf(found.worst_gap)
