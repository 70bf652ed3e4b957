"""`--fail-if "int4:decode.p50>5%"`: by how much which number may grow.

    [VARIANT:]PHASE.QUANTILE>NUMBER%

VARIANT is `int4` or `onnxruntime/int4`, any if it is left out. PHASE is one of `samples.KINDS`,
`prefill.64` for one length, or `*`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reference.errors import UserError
from validation.latency.samples import KINDS, PREFILL, kind_of
from validation.latency.summary import QUANTILES

_ANY = "*"

Place = tuple[str, str]
"""A variant's key and a phase: `onnxruntime/int4`, `decode`."""


class ThresholdError(UserError):
    """A threshold cannot be read, or speaks of nothing that was measured."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One limit."""

    text: str
    """As it was given."""
    variant: str
    """Empty for any."""
    phase: str
    quantile: str
    most: float
    """What the ratio new over base may be at most, less 1: 0.05 for 5 %."""

    def applies_to(self, key: str, phase: str) -> bool:
        """Whether it speaks of a phase of a variant, `onnxruntime/int4`."""
        variant = self.variant in ("", key, key.partition("/")[2])
        return variant and self.phase in (_ANY, phase, kind_of(phase))


def parse_threshold(text: str) -> Threshold:
    """Reads one.

    Raises:
        ThresholdError: naming the column, what was expected there and what was found.
    """
    front, sign, limit = text.partition(">")
    if not sign:
        raise _wrong(text, len(text), "'>'", "the end")
    variant, colon, place = front.rpartition(":")
    start = len(variant) + len(colon)
    if colon and not variant.strip():
        raise _wrong(text, 0, "a variant before ':'", "':'")
    phase, dot, quantile = place.rpartition(".")
    if not dot:
        raise _wrong(text, start, "PHASE.QUANTILE", repr(place))
    if not _is_phase(phase.strip()):
        known = ", ".join((*KINDS, f"{PREFILL}.LENGTH", _ANY))
        raise _wrong(text, start, f"one of {known}", repr(phase.strip()))
    if quantile.strip() not in QUANTILES:
        at = start + len(phase) + 1
        raise _wrong(text, at, f"one of {', '.join(QUANTILES)}", repr(quantile.strip()))
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", limit)
    if number is None:
        raise _wrong(text, len(front) + 1, "a number of percent, such as 5%", repr(limit.strip()))
    return Threshold(
        text=text,
        variant=variant.strip(),
        phase=phase.strip(),
        quantile=quantile.strip(),
        most=float(number[1]) / 100,
    )


def meant_by(threshold: Threshold, places: Sequence[Place], *, of: str) -> list[Place]:
    """The places that a threshold speaks of.

    Args:
        threshold: the limit.
        places: all that there are.
        of: what they are, for the message: "both runs have".

    Raises:
        ThresholdError: it speaks of none of them.
    """
    meant = [place for place in places if threshold.applies_to(*place)]
    if not meant:
        variants = ", ".join(dict.fromkeys(key for key, _ in places))
        phases = ", ".join(dict.fromkeys(phase for _, phase in places))
        raise ThresholdError(
            f"--fail-if {threshold.text!r}: nothing that {of} is meant by it",
            hint=f"variants: {variants or 'none'}; phases: {phases or 'none'}",
        )
    return meant


def _is_phase(name: str) -> bool:
    return name in (_ANY, *KINDS) or re.fullmatch(rf"{PREFILL}\.\d+", name) is not None


def _wrong(text: str, at: int, expected: str, found: str) -> ThresholdError:
    return ThresholdError(
        f"--fail-if {text!r}, column {at + 1}: expected {expected}, found {found}",
        hint='such as --fail-if "decode.p50>5%" or --fail-if "int4:prefill.280.p95>10%"',
    )
