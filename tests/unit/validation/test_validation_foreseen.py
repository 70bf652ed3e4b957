"""What is foreseen is what decoding gives, and anything else is decoded."""

from collections.abc import Sequence

import numpy as np
import pytest

from validation.runtimes.foreseen import ForeseenLogits, ForeseenSession

TABLE = np.arange(12, dtype=np.float32).reshape(6, 2)


class Sums:
    """A session whose logits are the sum of all rows so far, and which counts what it does."""

    def __init__(self, prompt: np.ndarray) -> None:
        self.prompt = prompt
        self.num_steps = 0

    def start(self) -> np.ndarray:
        self.sums = self.prompt.sum(axis=0)[None]
        return self.sums

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        self.num_steps += 1
        self.sums = self.sums + TABLE[token_ids]
        return self.sums

    def select(self, rows: np.ndarray) -> None:
        self.sums = self.sums[rows]


def rows_of(*token_ids: int) -> list[np.ndarray]:
    return [TABLE[token][None] for token in token_ids]


def foreseen_session(*token_ids: int) -> tuple[ForeseenSession, list[Sums]]:
    prompt, opened = np.ones((3, 2), np.float32), []
    known = ForeseenLogits()
    pieces = [prompt, *rows_of(*token_ids)]
    known.add(pieces, np.cumsum([piece.sum(axis=0) for piece in pieces], axis=0))

    def open_session() -> Sums:
        opened.append(Sums(prompt))
        return opened[-1]

    foreseen = known.beginning(prompt)
    assert foreseen is not None
    return ForeseenSession(foreseen, lambda ids: TABLE[ids], open_session), opened


def run(session: ForeseenSession | Sums, token_ids: Sequence[int]) -> np.ndarray:
    found = [session.start()]
    found += [session.step(np.array([token])) for token in token_ids]
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("taken", "num_steps"),
    [((4, 2, 5), 0), ((4, 2), 0), ((), 0), ((4, 3, 5), 3), ((1,), 1), ((4, 2, 5, 0), 4)],
)
def test_a_session_answers_what_decoding_gives_and_decodes_from_the_first_other_token(
    taken: tuple[int, ...], num_steps: int
) -> None:
    session, opened = foreseen_session(4, 2, 5)
    assert np.array_equal(run(session, taken), run(Sums(np.ones((3, 2), np.float32)), taken))
    assert sum(each.num_steps for each in opened) == num_steps


def test_after_rows_were_selected_nothing_is_foreseen() -> None:
    session, opened = foreseen_session(4, 2)
    plain = Sums(np.ones((3, 2), np.float32))
    for each in (session, plain):
        each.start()
        each.step(np.array([4]))
        each.select(np.array([0, 0]))
    both = [each.step(np.array([2, 1])) for each in (session, plain)]
    assert np.array_equal(*both)
    assert len(opened) == 1


def test_only_the_very_same_pieces_are_known() -> None:
    known = ForeseenLogits()
    logits = np.zeros((2, 3), np.float32)
    known.add([np.ones((2, 2), np.float32), *rows_of(3)], logits)
    assert known.after([np.ones((2, 2), np.float32), *rows_of(3)]) is logits
    assert known.after([np.ones((2, 2), np.float32), *rows_of(4)]) is None
    assert known.after([np.ones((2, 2), np.float32)]) is None
    assert known.after([np.ones((1, 4), np.float32), *rows_of(3)]) is None
    assert known.beginning(np.zeros((2, 2), np.float32)) is None
