"""A consumer's tokens against the reference's."""

from collections.abc import Mapping, Sequence

from validation.consumers.golden_cases import ConsumerCases
from validation.consumers.outcome import Outcome


def judged(
    cases: ConsumerCases,
    answers: Mapping[str, Sequence[int]],
    *,
    consumer: str,
    version: str,
    variant: str,
    min_agreement: float = 1.0,
) -> Outcome:
    """Agreed, if enough of the answers' tokens are the reference's.

    Args:
        cases: what was asked.
        answers: case id -> token ids; a last end-of-turn token may be there or not.
        consumer, version, variant: as in `Outcome`.
        min_agreement: least share of tokens in the place where the reference has them; 1 for the
            same precision. Why less will do for fewer bits is the caller's to say.
    """
    if missing := [case.id for case in cases.cases if case.id not in answers]:
        status, detail = False, f"no answer for {', '.join(missing)}"
    else:
        shares = [
            agreement(case.token_ids, _ended(answers[case.id], cases.contract.eos_token_ids))
            for case in cases.cases
        ]
        equal = sum(share == 1.0 for share in shares)
        mean = sum(shares) / len(shares)
        status = mean >= min_agreement
        detail = (
            f"{equal} of {len(shares)} answers token for token; "
            f"{mean:.1%} of tokens (at least {min_agreement:.0%} asked)"
        )
    return Outcome(
        consumer=consumer,
        version=version,
        variant=variant,
        status="agreed" if status else "disagreed",
        detail=detail,
    )


def agreement(expected: Sequence[int], found: Sequence[int]) -> float:
    """Share of places that hold the same token, of the longer of both; 1.0 if both are empty."""
    places = max(len(expected), len(found))
    same = sum(one == other for one, other in zip(expected, found, strict=False))
    return same / places if places else 1.0


def _ended(token_ids: Sequence[int], eos_token_ids: Sequence[int]) -> Sequence[int]:
    ended = bool(token_ids) and token_ids[-1] in eos_token_ids
    return token_ids[:-1] if ended else token_ids
