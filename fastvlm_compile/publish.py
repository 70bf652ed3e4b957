"""Leave a bundle alone that is already as it should be; otherwise have it made and remember it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import OutputError
from fastvlm_compile.latest import Published, load_record, save_record
from fastvlm_compile.store import Store, folder_memo


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is to stand where."""

    recipe: str
    folder: Path
    key: str
    """Digest of everything that decides the content."""


def publish(
    publication: Publication, put_in_place: Callable[[], object], store: Store
) -> Literal["published", "up to date"]:
    """Have a bundle put in its place, unless it stands there already, byte for byte.

    Args:
        publication: what and where.
        put_in_place: makes the bundle and gives it its name in one step.
        store: remembers what was published.

    Raises:
        OutputError: the folder cannot be read.
        UserError: what `put_in_place` raises.
    """
    folder = publication.folder
    record = load_record(store, publication.recipe)
    with refusals(OutputError, folder):
        standing = _digest(folder, store) if folder.is_dir() else ""
    if record.published == Published(key=publication.key, digest=standing):
        return "up to date"
    put_in_place()
    published = Published(key=publication.key, digest=_digest(folder, store))
    save_record(store, publication.recipe, dataclasses.replace(record, published=published))
    return "published"


def _digest(folder: Path, store: Store) -> str:
    tree = store.outside_tree(folder, hidden=True)
    store.remember_memo(folder_memo(folder), tree.memo)
    return tree.digest
