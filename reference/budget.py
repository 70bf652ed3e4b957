"""How much of a language model stays in memory where it is read as it runs (`streaming.py`)."""

from collections.abc import Iterable

RESIDENT_BYTES = 2 * 2**30
"""By default: all of the 0.5B's layers and head in float32."""

FEW_RESIDENT_BYTES = RESIDENT_BYTES // 4
"""Where more is in memory at once: two models with a tower each, or what a search tries."""


def resident(sizes: Iterable[float], budget: float) -> list[bool]:
    """Which parts stay, given their sizes in the order in which they run: each that still fits."""
    stay = []
    for size in sizes:
        stay.append(size <= budget)
        if stay[-1]:
            budget -= size
    return stay
