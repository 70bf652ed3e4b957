"""Beam search over a `Session`, with the semantics of `transformers`' default beam search.

Length penalty 1 (a finished beam's score is its mean log probability, the end token counted) and
`early_stopping=False`: the search ends when the best running beam can no longer beat the worst of
`num_beams` finished ones. Source: `GenerationMixin._beam_search` of `transformers` 5.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reference.decoding import (
    Clock,
    Generation,
    GenerationSettings,
    Logits,
    OnToken,
    Session,
    checked_logits,
)


@dataclass(frozen=True, kw_only=True)
class _Beam:
    token_ids: tuple[int, ...]
    score: float  # running: sum of log probabilities; finished: divided by the length
    ended: bool = False


def beam_search(
    session: Session, settings: GenerationSettings, *, on_token: OnToken | None = None
) -> Generation:
    """Decodes one answer with `settings.num_beams` beams; the best finished beam is the answer.

    Raises:
        GenerationError: a logit is not finite.
    """
    clock = Clock()
    width = settings.num_beams
    logits = checked_logits(session.start(), settings.vocab_limit)
    running = [_Beam(token_ids=(), score=0.0)]
    finished: list[_Beam] = []
    for length in range(1, settings.max_new_tokens + 1):
        candidates, parents = _continuations(logits, running, settings)
        clock.tick()
        # Only the best `width` candidates may finish; the rest are spares to keep the beam full.
        at_limit = length == settings.max_new_tokens
        done = [beam for beam in candidates[:width] if beam.ended or at_limit]
        finished = _best(finished, done, length=length, width=width)
        open_rows = [row for row, beam in enumerate(candidates) if not beam.ended][:width]
        running = [candidates[row] for row in open_rows]
        if at_limit or _cannot_improve(running, finished, length=length, width=width):
            break
        session.select(np.array([parents[row] for row in open_rows], dtype=np.int64))
        last = np.array([beam.token_ids[-1] for beam in running], dtype=np.int64)
        logits = checked_logits(session.step(last), settings.vocab_limit)
    answer = finished[0]
    ids = list(answer.token_ids[:-1] if answer.ended else answer.token_ids)
    if on_token is not None:
        for token in ids:
            on_token(token)
    reason: Literal["eos", "length"] = "eos" if answer.ended else "length"
    return clock.generation(ids, reason)


def _continuations(
    logits: Logits, running: list[_Beam], settings: GenerationSettings
) -> tuple[list[_Beam], list[int]]:
    """The best continuations over all beams, best first, and the running row each comes from.

    So many are kept that `num_beams` stay open even if every end token is among the best.
    """
    vocabulary = logits.shape[1]
    scores = np.array([beam.score for beam in running])
    total = (_log_softmax(logits) + scores[:, None]).reshape(-1)
    wanted = max(2, 1 + len(settings.eos_token_ids)) * settings.num_beams
    best = np.argpartition(-total, min(wanted, total.size) - 1)[:wanted]
    order = best[np.lexsort((best, -total[best]))]  # ties go to the earlier beam and token
    beams, parents = [], []
    for flat in order:
        row, token = divmod(int(flat), vocabulary)
        beams.append(
            _Beam(
                token_ids=(*running[row].token_ids, token),
                score=float(total[flat]),
                ended=token in settings.eos_token_ids,
            )
        )
        parents.append(row)
    return beams, parents


def _best(finished: list[_Beam], done: list[_Beam], *, length: int, width: int) -> list[_Beam]:
    fresh = [
        _Beam(token_ids=beam.token_ids, score=beam.score / length, ended=beam.ended)
        for beam in done
    ]
    return sorted([*finished, *fresh], key=lambda beam: -beam.score)[:width]


def _cannot_improve(
    running: list[_Beam], finished: list[_Beam], *, length: int, width: int
) -> bool:
    if not running:
        return True
    if len(finished) < width:
        return False
    return running[0].score / length <= finished[-1].score


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
