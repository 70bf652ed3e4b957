"""What is looked at before a build starts: whether what it still has to build fits."""

from fastvlm_compile.estimate.forecast import Forecast
from fastvlm_compile.estimate.refusal import refusal
from fastvlm_compile.estimate.room import Room
from fastvlm_compile.estimate.tables import to_build
from fastvlm_compile.latest import load_record
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import verdicts


def refuse_too_large(whole: Forecast, store: Store, room: Room) -> None:
    """Refuse a build that cannot fit; stages that are in the store take nothing.

    Args:
        whole: of the recipe.
        store: is only looked at, and only if the whole recipe would not fit.
        room: of the machine.

    Raises:
        TooLargeError: by how much, and what to leave out.
    """
    if refusal(whole, whole.stages, room) is None:
        return
    found = tuple(verdicts(whole.plan, store, load_record(store, whole.recipe.name)))
    refused = refusal(whole, to_build(found), room)
    if refused is not None:
        raise refused.error()
