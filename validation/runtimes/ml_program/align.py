"""Which value of one package corresponds to which of another."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from validation.runtimes.ml_program.plan import ValueInfo

# What coremltools appends to names when it casts a program to another precision.
_PRECISION = re.compile(r"(_cast|_to)_(fp16|fp32)$")


def align(first: Sequence[ValueInfo], second: Sequence[ValueInfo]) -> dict[str, str]:
    """Names of the first package's values to those of the second's.

    Values of one name correspond; then those whose names differ by a precision suffix only; then,
    between two that correspond, those that the same ops give in the same order and shape: two
    conversions of one model name the results of fused ops differently. Casts are left out there,
    because precisions differ in them.
    """
    left, right = [value.name for value in first], [value.name for value in second]
    known = set(right)
    found = {name: name for name in left if name in known}
    by_stem = _unique_stems([name for name in right if name not in found])
    for stem, name in _unique_stems([name for name in left if name not in found]).items():
        if stem in by_stem:
            found[name] = by_stem[stem]
    for ours, theirs in _gaps(first, second, found):
        matcher = SequenceMatcher(
            None, [_token(v) for v in ours], [_token(v) for v in theirs], autojunk=False
        )
        for block in matcher.get_matching_blocks():
            for i in range(block.size):
                found[ours[block.a + i].name] = theirs[block.b + i].name
    return {name: found[name] for name in left if name in found}


def _unique_stems(names: list[str]) -> dict[str, str]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_PRECISION.sub("", name), []).append(name)
    return {stem: same[0] for stem, same in stems.items() if len(same) == 1}


def _token(value: ValueInfo) -> tuple[str, tuple[int | None, ...] | None]:
    return value.kind, value.type.shape


def _gaps(
    first: Sequence[ValueInfo], second: Sequence[ValueInfo], found: dict[str, str]
) -> Iterator[tuple[list[ValueInfo], list[ValueInfo]]]:
    """Values without a counterpart, gap by gap between those that have one, casts left out."""
    places = {value.name: place for place, value in enumerate(second)}
    taken = set(found.values())
    pending: list[ValueInfo] = []
    start = 0
    for value in (*first, None):
        if value is not None and value.name not in found:
            pending.append(value)
            continue
        end = len(second) if value is None else places[found[value.name]]
        if end < start:
            continue  # the packages compute these two in another order: no anchor
        others = [other for other in second[start:end] if other.name not in taken]
        ours, theirs = ([v for v in part if v.kind != "cast"] for part in (pending, others))
        if ours and theirs:
            yield ours, theirs
        pending, start = [], end + 1
