"""Whether a build fits this machine, and what to leave out of it where it does not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastvlm_compile.console import format_bytes
from fastvlm_compile.errors import TooLargeError
from fastvlm_compile.estimate.forecast import Forecast, of_fewer
from fastvlm_compile.estimate.room import Room
from fastvlm_compile.recipe_narrow import narrow

OVERRIDE = "--even-if-too-large"
Variants = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a build cannot fit.

    Attributes:
        recipe: its name.
        problems: one for memory, one for disk.
        hint: which variants to leave out.
    """

    recipe: str
    problems: tuple[str, ...]
    hint: str

    @property
    def message(self) -> str:
        """All problems in one text."""
        return f"a build of {self.recipe} does not fit here: " + "; ".join(self.problems)

    def error(self) -> TooLargeError:
        """As what `build` ends with."""
        return TooLargeError(self.message, hint=self.hint)


def refusal(
    whole: Forecast, to_build: Collection[str], room: Room, *, before: Sequence[str] = ()
) -> Refusal | None:
    """Why these stages cannot be built in `room`; None where they can.

    Args:
        whole: of the recipe.
        to_build: the stages that are not in the store.
        room: of the machine.
        before: recipes whose builds are taken from `room` already.
    """
    total = whole.total(to_build)
    problems = []
    if total.memory_bytes > room.memory_bytes:
        problems.append(
            f"the stage {total.largest} takes about {format_bytes(total.memory_bytes)} of memory, "
            f"{_more(total.memory_bytes, room.memory_bytes)} available"
        )
    if total.written_bytes > room.disk_bytes:
        beside = f" beside {' and '.join(before)}" if before else ""
        problems.append(
            f"its stages and the bundle take about {format_bytes(total.written_bytes)} of disk, "
            f"{_more(total.written_bytes, room.disk_bytes)} free{beside}"
        )
    if not problems:
        return None
    return Refusal(
        recipe=whole.recipe.name, problems=tuple(problems), hint=_hint(whole, to_build, room)
    )


def _more(needed: int, there: int) -> str:
    return f"{format_bytes(needed - there)} more than the {format_bytes(there)} that are"


def _hint(whole: Forecast, to_build: Collection[str], room: Room) -> str:
    every = _variants(whole)
    fitting = _within_disk(whole, _within_memory(whole, every, to_build, room), to_build, room)
    forced = f"{OVERRIDE} builds it nevertheless"
    if fitting:
        names = ", ".join(f"{target}.{variant}" for target, variant in sorted(every - fitting))
        return f"leave out of the recipe's targets: {names}; {forced}"
    shared = [
        name
        for name in sorted(_too_large(whole, to_build, room))
        if all(name in _alone(whole, each).stages for each in every)
    ]
    which = f": all need the stage {shared[0]}" if shared else ""
    return f"no variant of the recipe would fit{which}; {forced}"


def _within_memory(
    whole: Forecast, variants: Variants, to_build: Collection[str], room: Room
) -> Variants:
    """The variants that need no stage which is too large."""
    too_large = _too_large(whole, to_build, room)
    return frozenset(each for each in variants if not too_large & _alone(whole, each).stages.keys())


def _within_disk(
    whole: Forecast, variants: Variants, to_build: Collection[str], room: Room
) -> Variants:
    """As many variants as fit the disk; whichever frees the most is left out next."""
    left = variants
    while left and _disk_bytes(whole, left, to_build) > room.disk_bytes:
        left = min(
            (left - {each} for each in sorted(left)),
            key=lambda fewer: _disk_bytes(whole, fewer, to_build),
        )
    return left


def _disk_bytes(whole: Forecast, variants: Variants, to_build: Collection[str]) -> int:
    if not variants:
        return 0
    return of_fewer(whole, narrow(whole.recipe, variants)).total(to_build).written_bytes


def _too_large(whole: Forecast, to_build: Collection[str], room: Room) -> frozenset[str]:
    return frozenset(
        name for name in to_build if whole.stages[name].memory_bytes > room.memory_bytes
    )


def _variants(whole: Forecast) -> Variants:
    built = whole.recipe.targets.variants().items()
    return frozenset((target, variant) for target, names in built for variant in names)


def _alone(whole: Forecast, variant: tuple[str, str]) -> Forecast:
    return of_fewer(whole, narrow(whole.recipe, frozenset({variant})))
