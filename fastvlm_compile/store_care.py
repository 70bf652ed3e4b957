"""Looking after a store: list it, check every byte of it, drop what no recipe uses any more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile import locks
from fastvlm_compile.durable import ASIDE, refusals
from fastvlm_compile.errors import StoreError
from fastvlm_compile.latest import load_record, recorded_recipes
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Damage

_DAY_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class StoredEntry:
    """One entry as its manifest tells of it; the files themselves are not looked at."""

    key: str
    stage: str
    """Empty when the manifest is damaged."""
    size_bytes: int
    finished_s: float
    """Seconds since 1970."""
    duration_s: float
    peak_memory_bytes: int
    recipes: tuple[str, ...]
    """Whose latest build stands on it."""
    unfinished: bool = False
    """Whether these are pieces of an entry that is not there yet."""


def inventory(store: Store) -> tuple[StoredEntry, ...]:
    """All entries, sorted by stage, and what is kept of unfinished ones.

    Raises:
        StoreError: there is no store, or a record of a build is damaged.
    """
    store.check_schema()
    users: dict[str, list[str]] = {}
    begun: dict[str, list[str]] = {}
    for recipe in recorded_recipes(store):
        record = load_record(store, recipe)
        for key in record.entry_keys():
            users.setdefault(key, []).append(recipe)
        for key in record.begun.values():
            begun.setdefault(key, []).append(recipe)
    entries = [_stored(store, key, tuple(users.get(key, ()))) for key in store.entry_keys()]
    for key, stage in store.unfinished.stages().items():
        entries.append(_unfinished(store, key, stage, tuple(begun.get(key, ()))))
    return tuple(sorted(entries, key=lambda entry: (entry.stage, entry.key)))


def damages(store: Store) -> Iterator[Damage]:
    """Every damaged entry; all bytes of the store are read.

    Raises:
        StoreError: there is no store.
    """
    store.check_schema()
    for key in store.entry_keys():
        found = store.look(key, trust_memo=False)
        if isinstance(found, Damage):
            yield found


def unused(store: Store, *, keep_days: float, now_s: float) -> tuple[StoredEntry, ...]:
    """The entries that no recipe's latest build stands on and that are older than `keep_days`."""
    oldest_s = now_s - keep_days * _DAY_S
    return tuple(
        entry for entry in inventory(store) if not entry.recipes and entry.finished_s <= oldest_s
    )


def collect(store: Store, *, keep_days: float, now_s: float) -> tuple[StoredEntry, ...]:
    """Drop unused entries, and what killed builds left behind; as `drop`.

    Args:
        store: not in use by a build.
        keep_days: keep unused entries that were finished within so many days.
        now_s: the present, seconds since 1970.
    """
    return drop(store, lambda: unused(store, keep_days=keep_days, now_s=now_s))


def drop(store: Store, choose: Callable[[], tuple[StoredEntry, ...]]) -> tuple[StoredEntry, ...]:
    """Drop entries, and what killed builds left behind.

    Args:
        store: not in use by a build.
        choose: says which, asked when no build can begin any more.

    Returns:
        The entries that were dropped.

    Raises:
        StoreError: a build uses the store, or the disk refuses.
    """
    store.check_schema()
    store.open()
    with (
        refusals(StoreError, store.root),
        locks.exclusive_if_free(store.root / "locks" / "store.lock") as free,
    ):
        if not free:
            raise StoreError(
                f"{store.root}: a build is using this store", hint="wait until it has ended"
            )
        doomed = choose()
        for entry in doomed:
            if entry.unfinished:
                store.unfinished.drop(entry.key)
            else:
                store.disk.remove(store.root / "entries" / entry.key)
        store.sweep()
        _drop_traces(store)
    return doomed


def _drop_traces(store: Store) -> None:
    """Files that belong to entries which are gone, and half-written files of killed builds."""
    keys = {*store.entry_keys(), *store.unfinished.stages()}
    short_keys = {key[:12] for key in keys}
    for path in (store.root / "logs").glob("*.log"):
        if path.stem.rpartition("-")[2] not in short_keys:
            path.unlink()
    for folder, suffix in (("locks", ".lock"), ("stat", ".json")):
        for path in (store.root / folder).glob(f"*{suffix}"):
            is_key = len(path.stem) == 64  # not the store's own lock, nor a folder's memo
            if is_key and path.stem not in keys:
                path.unlink()
    for path in store.root.rglob(f"{ASIDE}*"):
        if not any(path.is_relative_to(store.root / place) for place in ("entries", "kept")):
            path.unlink()


def _stored(store: Store, key: str, recipes: tuple[str, ...]) -> StoredEntry:
    manifest = store.manifest(key)
    if isinstance(manifest, Damage):
        return StoredEntry(
            key=key,
            stage="",
            size_bytes=0,
            finished_s=_finished_s(store.root / "entries" / key),
            duration_s=0.0,
            peak_memory_bytes=0,
            recipes=recipes,
        )
    return StoredEntry(
        key=key,
        stage=manifest.ingredients.stage,
        size_bytes=sum(file.size_bytes for file in manifest.files),
        finished_s=_finished_s(store.root / "entries" / key / "manifest.json"),
        duration_s=manifest.duration_s,
        peak_memory_bytes=manifest.peak_memory_bytes,
        recipes=recipes,
    )


def _unfinished(store: Store, key: str, stage: str, recipes: tuple[str, ...]) -> StoredEntry:
    folder = store.unfinished.folder(key)
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return StoredEntry(
        key=key,
        stage=stage,
        size_bytes=sum(stat.st_size for stat in stats),
        finished_s=max((stat.st_mtime for stat in stats), default=_finished_s(folder)),
        duration_s=0.0,
        peak_memory_bytes=0,
        recipes=recipes,
        unfinished=True,
    )


def _finished_s(path: Path) -> float:
    return path.stat().st_mtime
