"""What is looked at before builds start: whether what they still have to build fits."""

import dataclasses
from collections.abc import Collection, Sequence

from fastvlm_compile.estimate.forecast import Forecast
from fastvlm_compile.estimate.refusal import Refusal, refusal
from fastvlm_compile.estimate.room import Room
from fastvlm_compile.estimate.shared import origins
from fastvlm_compile.estimate.tables import to_build
from fastvlm_compile.latest import load_record
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import verdicts


def refuse_too_large(forecasts: Sequence[Forecast], store: Store, room: Room) -> None:
    """Refuse builds of which one cannot fit; stages that are in the store take nothing.

    Args:
        forecasts: of the recipes, in the order of their builds; each has to fit beside what those
            before it leave on the disk.
        store: is only looked at, and only if something would not fit from nothing.
        room: of the machine.

    Raises:
        TooLargeError: by how much, and what to leave out.
    """
    if _first_refusal(forecasts, [each.stages for each in forecasts], room) is None:
        return
    missing = [
        to_build(tuple(verdicts(each.plan, store, load_record(store, each.recipe.name))))
        for each in forecasts
    ]
    refused = _first_refusal(forecasts, missing, room)
    if refused is not None:
        raise refused.error()


def _first_refusal(
    forecasts: Sequence[Forecast], to_build: Sequence[Collection[str]], room: Room
) -> Refusal | None:
    taken: set[str] = set()
    before: list[str] = []
    for each, names in zip(forecasts, to_build, strict=True):
        origin = origins(each.plan)
        new = [name for name in names if origin[name] not in taken]
        refused = refusal(each, new, room, before=before)
        if refused is not None:
            return refused
        taken.update(origin[name] for name in new)
        left = room.disk_bytes - each.total(new).written_bytes
        room = dataclasses.replace(room, disk_bytes=left)
        before.append(each.recipe.name)
    return None
