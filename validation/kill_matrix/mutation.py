"""One fault of a saved package."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from validation.kill_matrix.draft import Draft

SPEC = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A fault and how to make it.

    Attributes:
        kind: what was done, as the table groups it: "weight transposed".
        file: the package or file that is damaged, by its name in the folder.
        where: op, constant or place.
        what: old and new in a few words, empty where the kind says it all.
        edit: damages a copy of the program and its weights.
        damage: damages a copy of the files behind that; given the copied package or file.
    """

    kind: str
    file: str
    where: str
    what: str = ""
    edit: Callable[[Draft], None] | None = None
    damage: Callable[[Path], None] | None = None

    @property
    def name(self) -> str:
        """`decoder.mlpackage: epsilon x10, prefill/normed_1 (1e-06 -> 1e-05)`."""
        what = f" ({self.what})" if self.what else ""
        return f"{self.file}: {self.kind}, {self.where}{what}"


def sampled(mutations: Iterable[Mutation], *, per_kind: int, seed: int) -> tuple[Mutation, ...]:
    """At most `per_kind` of each kind and file, chosen by the seed, in order, none twice."""
    groups: dict[tuple[str, str], list[int]] = {}
    found = list({mutation.name: mutation for mutation in mutations}.values())
    for place, mutation in enumerate(found):
        groups.setdefault((mutation.kind, mutation.file), []).append(place)
    random = Random(seed)
    kept = {
        place
        for places in groups.values()
        for place in random.sample(places, min(per_kind, len(places)))
    }
    return tuple(mutation for place, mutation in enumerate(found) if place in kept)
