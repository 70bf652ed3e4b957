"""What the latest build of each recipe was made of: why the next one misses, and what gc keeps."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import RecipeError, StoreError
from fastvlm_compile.key import Ingredients
from fastvlm_compile.store import Store
from fastvlm_compile.structure import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class Published:
    """A bundle as it was published."""

    key: str
    """Digest of what it was made of."""
    digest: str
    """Digest of the folder."""
    manifest: str = ""
    """sha256 of its manifest as it was built, before consumers were told in it."""


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """The latest build of one recipe, finished or not."""

    stages: Mapping[str, Ingredients] = field(default_factory=dict)
    published: Published | None = None
    restored: Mapping[str, bool] = field(default_factory=dict)
    """Stage -> whether the store had its result already when it was last asked for."""
    begun: Mapping[str, str] = field(default_factory=dict)
    """Stage -> key of the result that was begun last and is not there: its pieces are wanted."""

    def with_begun(self, ingredients: Ingredients) -> "BuildRecord":
        """The record when a stage that keeps pieces of its work starts."""
        return dataclasses.replace(self, begun={**self.begun, ingredients.stage: ingredients.key})

    def with_stage(self, ingredients: Ingredients, *, restored: bool) -> "BuildRecord":
        """The record after one more stage is there."""
        name = ingredients.stage
        return dataclasses.replace(
            self,
            stages={**self.stages, name: ingredients},
            restored={**self.restored, name: restored},
            begun={other: key for other, key in self.begun.items() if other != name},
        )

    def only(self, stages: Sequence[str]) -> "BuildRecord":
        """The record without stages that the recipe has no more; all of these are in it."""
        return dataclasses.replace(
            self,
            stages={name: self.stages[name] for name in stages},
            restored={name: self.restored[name] for name in stages},
            begun={},
        )

    def entry_keys(self) -> frozenset[str]:
        """The keys of the entries that the build stands on."""
        return frozenset(ingredients.key for ingredients in self.stages.values())


def load_record(store: Store, recipe: str) -> BuildRecord:
    """The record of a recipe; an empty one when it was never built.

    Raises:
        StoreError: the record is damaged.
    """
    path = _path(store, recipe)
    try:
        return from_plain(json.loads(path.read_bytes()), BuildRecord)
    except FileNotFoundError:
        return BuildRecord()
    except (OSError, ValueError, RecipeError) as error:
        raise StoreError(
            f"{path}: this record of the latest build is damaged: {error}",
            hint="remove the file; it only tells why stages are built again and what gc keeps",
        ) from error


def save_record(store: Store, recipe: str, record: BuildRecord) -> None:
    """Replace the record of a recipe, if it says anything new.

    Raises:
        StoreError: the disk is full or read-only.
    """
    path = _path(store, recipe)
    data = json.dumps(to_plain(record), indent=1, sort_keys=True).encode() + b"\n"
    if not path.is_file() or path.read_bytes() != data:
        with refusals(StoreError, store.root):
            store.disk.write(path, data)


def recorded_recipes(store: Store) -> tuple[str, ...]:
    """The names of the recipes that have a record."""
    return tuple(sorted(path.stem for path in (store.root / "latest").glob("[!.]*.json")))


def _path(store: Store, recipe: str) -> Path:
    return store.root / "latest" / f"{recipe}.json"
