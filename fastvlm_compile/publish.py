"""Leave a bundle alone that is already as it should be; otherwise have it made and remember it."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.bundle.manifest import MANIFEST_NAME
from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import OutputError
from fastvlm_compile.latest import BuildRecord, Published, load_record, save_record
from fastvlm_compile.store import Store, folder_memo


def _never_annotated(folder: Path) -> str:
    del folder
    return ""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is to stand where."""

    recipe: str
    folder: Path
    key: str
    """Digest of everything that decides the content."""
    as_built: Callable[[Path], str] = _never_annotated
    """Of a bundle that is whole: the sha256 of its manifest without what became known of it
    later; empty for any other folder."""


def publish(
    publication: Publication, put_in_place: Callable[[], object], store: Store
) -> Literal["published", "up to date"]:
    """Have a bundle put in its place, unless it stands there already, byte for byte.

    What `consumers` and `latency --record` wrote into it since is kept with it.

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
    latest = record.published
    if latest is not None and standing and latest.key == publication.key:
        if latest.digest == standing:
            return "up to date"
        if latest.manifest and latest.manifest == publication.as_built(folder):
            _remember(publication, dataclasses.replace(latest, digest=standing), record, store)
            return "up to date"
    put_in_place()
    published = Published(
        key=publication.key,
        digest=_digest(folder, store),
        manifest=_sha256(folder / MANIFEST_NAME),
    )
    _remember(publication, published, record, store)
    return "published"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _remember(
    publication: Publication, published: Published, record: BuildRecord, store: Store
) -> None:
    save_record(store, publication.recipe, dataclasses.replace(record, published=published))


def _digest(folder: Path, store: Store) -> str:
    tree = store.outside_tree(folder, hidden=True)
    store.remember_memo(folder_memo(folder), tree.memo)
    return tree.digest
