"""The decoding loop over a `Session`, for every runtime alike: greedy, sampling or beam search.

numpy only, so that a bundle answers without PyTorch. The semantics are those of `transformers`'
`generate`: greedy and beam search give the same tokens for the same logits.
"""

import numpy as np
import numpy.typing as npt

from reference.beam import beam_search
from reference.decoding import (
    Clock,
    Generation,
    GenerationError,
    GenerationSettings,
    Logits,
    OnToken,
    Session,
    checked_logits,
)

__all__ = [
    "Generation",
    "GenerationError",
    "GenerationSettings",
    "Session",
    "generate",
    "sampling_probabilities",
]


def generate(
    session: Session, settings: GenerationSettings, *, on_token: OnToken | None = None
) -> Generation:
    """Decodes one answer.

    Args:
        session: a fresh session whose prompt has not been run.
        settings: how to choose tokens.
        on_token: called with each token of the answer as soon as it is certain: at once when greedy
            or sampling, at the end with beam search.

    Raises:
        GenerationError: a logit is not finite.
    """
    if settings.num_beams > 1:
        return beam_search(session, settings, on_token=on_token)
    clock = Clock()
    generator = np.random.default_rng(settings.seed)
    logits = checked_logits(session.start(), settings.vocab_limit)
    chosen: list[int] = []
    while True:
        token = _choose(logits[0], settings, generator)
        clock.tick()
        if token in settings.eos_token_ids:
            return clock.generation(chosen, "eos")
        chosen.append(token)
        if on_token is not None:
            on_token(token)
        if len(chosen) == settings.max_new_tokens:
            return clock.generation(chosen, "length")
        ids = np.array([token], dtype=np.int64)
        logits = checked_logits(session.step(ids), settings.vocab_limit)


def _choose(logits: Logits, settings: GenerationSettings, generator: np.random.Generator) -> int:
    if settings.temperature == 0:
        return int(np.argmax(logits))
    probabilities = sampling_probabilities(
        logits, temperature=settings.temperature, top_p=settings.top_p
    )
    return int(generator.choice(len(probabilities), p=probabilities))


def sampling_probabilities(
    logits: Logits, *, temperature: float, top_p: float
) -> npt.NDArray[np.float64]:
    """What sampling draws from: softmax(logits [V] / temperature), cut to the nucleus of `top_p`.

    As `transformers`' `TopPLogitsWarper`: sorted ascending, tokens whose cumulative probability is
    at most 1 - top_p are dropped, the most probable one always stays.

    Returns:
        float64 [V], adding up to 1.
    """
    probabilities = _softmax(logits.astype(np.float64), temperature)
    if top_p < 1:
        ascending = np.argsort(probabilities, kind="stable")
        dropped = np.cumsum(probabilities[ascending]) <= 1 - top_p
        dropped[-1] = False
        probabilities[ascending[dropped]] = 0
        probabilities /= probabilities.sum()
    return probabilities


def _softmax(logits: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    # Shifted before the division: a tiny temperature then gives -inf and 0, never inf - inf.
    with np.errstate(over="ignore"):
        exponentials = np.exp((logits - logits.max()) / temperature)
    return np.asarray(exponentials / exponentials.sum(), dtype=np.float64)
