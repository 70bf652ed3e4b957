"""A consumer's tokens, each held against float32 logits after the tokens before it.

Where a consumer computes in another precision its answer may leave the expected one at a near tie,
and be right all the same; where it computes something else, its tokens are no near ties.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reference.decoding import Session


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What the logits say of an answer.

    Attributes:
        num_tokens: of the answer, its end of turn included.
        num_best: of them, how many have the largest logit.
        worst_gap: how far a token's logit is below the largest, at most, in standard deviations
            of the logits in its place; infinity for an answer that is empty or none.
    """

    num_tokens: int
    num_best: int
    worst_gap: float


def follow(
    session: Session, answer: Sequence[int], *, max_new_tokens: int, eos_token_ids: Sequence[int]
) -> Followed:
    """Run an answer, token by token.

    Args:
        session: a new decoding of the prompt, batch of one.
        answer: token ids, the end of turn among them or left out.
        max_new_tokens: an answer with fewer ended its turn.
        eos_token_ids: any of these ends a turn.
    """
    tokens: list[Sequence[int]] = [[token] for token in answer]
    if len(tokens) < max_new_tokens and not set(answer) & set(eos_token_ids):
        tokens.append(eos_token_ids)
    gaps = []
    logits = session.start()
    for position, allowed in enumerate(tokens):
        row = np.asarray(logits, dtype=np.float64).reshape(-1)
        if not all(0 <= token < len(row) for token in allowed):
            gaps.append(np.inf)
            break
        gaps.append(float((row.max() - row[list(allowed)].max()) / row.std()))
        if position + 1 < len(tokens):
            logits = session.step(np.array(allowed[:1], dtype=np.int64))
    return Followed(
        num_tokens=len(tokens),
        num_best=sum(gap == 0 for gap in gaps),
        worst_gap=max(gaps) if answer else np.inf,
    )
