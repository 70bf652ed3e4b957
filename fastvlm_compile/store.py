"""Finished work by the key of what went into it. An entry is whole and verified, or not there.

    .store/entries/<key>/output/        what the stage wrote
    .store/entries/<key>/manifest.json  what it should be; written last
    .store/kept/<key>/                  pieces of an output that is not finished (`unfinished.py`)
    .store/{staging,locks,logs,stat,latest,reports}/

A builder holds the key's lock, fills a staging folder, syncs it, writes the manifest and renames.
A stage whose output is made in pieces keeps those that are whole beside: they are of the same key,
so of the same code and inputs, and the build after a kill or a failure goes on with them. They are
linked into the output, never part of the entry, and go when it is there.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_compile import locks
from fastvlm_compile.durable import Disk, refusals
from fastvlm_compile.errors import RecipeError, StoreError
from fastvlm_compile.key import Ingredients, canonical_json
from fastvlm_compile.store_entry import (
    Damage,
    Entry,
    EntryManifest,
    difference,
    sealed,
    unsealed,
)
from fastvlm_compile.tree_digest import StatMemo, Tree, read_tree, unlinked_elsewhere
from fastvlm_compile.unfinished import Unfinished

SCHEMA = 1
_FOLDERS = ("entries", "staging", "kept", "locks", "logs", "stat", "latest", "reports")


@dataclass(frozen=True, kw_only=True)
class Store:
    """The store at `root`. Looking writes nothing; `open` comes before everything that writes."""

    root: Path
    disk: Disk = field(default_factory=Disk)

    @property
    def unfinished(self) -> Unfinished:
        """The pieces of outputs that are not there yet."""
        return Unfinished(root=self.root, disk=self.disk)

    def open(self) -> None:
        """Make the store if it is not there.

        Raises:
            StoreError: it cannot be made, or `root` is a folder with something else in it.
        """
        marker = self.root / "store.json"
        with refusals(StoreError, self.root):
            if not marker.is_file():
                # Looked at again: another build may be making the store, its marker first.
                if any(self.root.glob("[!.]*")) and not marker.is_file():
                    raise StoreError(
                        f"{self.root}: this folder is not empty and is no store",
                        hint="give `--store` a folder of its own",
                    )
                self.disk.make_folder(self.root)
                self.disk.write(marker, canonical_json({"schema": SCHEMA}) + b"\n")
            self.check_schema()
            for name in _FOLDERS:
                self.disk.make_folder(self.root / name)

    def check_schema(self) -> None:
        """Refuse a store that another version of this program made.

        Raises:
            StoreError: that, or the folder is no store.
        """
        try:
            found = json.loads((self.root / "store.json").read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.root}: this is no store: store.json cannot be read: {error}"
            ) from error
        if found != {"schema": SCHEMA}:
            raise StoreError(
                f"{self.root}: this store has another format: {found}",
                hint="remove it, or use the version of fastvlm-compile that made it",
            )

    def look(self, key: str, *, trust_memo: bool = True) -> Entry | Damage | None:
        """Find an entry and verify every file of it.

        Args:
            key: the key.
            trust_memo: believe the file system about files that did not change since they were
                last read; otherwise every byte is read.
        """
        folder = self.root / "entries" / key
        if not folder.is_dir():
            return None
        manifest = self.manifest(key)
        if isinstance(manifest, Damage):
            return manifest
        extra = {path.name for path in folder.iterdir()} - {"output", "manifest.json"}
        if extra:
            return Damage(key=key, problem=f"{min(extra)} was added")
        memo = StatMemo.load(self._memo_path(key)) if trust_memo else StatMemo()
        try:
            tree = read_tree(folder / "output", memo, hidden=True)
        except OSError as error:
            return Damage(key=key, problem=f"{error.filename} cannot be read: {error.strerror}")
        if problem := difference(manifest.files, tree):
            return Damage(key=key, problem=problem)
        return Entry(key=key, output=folder / "output", manifest=manifest, memo=tree.memo)

    def holds(self, key: str) -> bool:
        """Whether there is an entry, whole or not, here."""
        return (self.root / "entries" / key).is_dir()

    def find(self, key: str) -> Entry | Damage | None:
        """As `look`; a store that is kept elsewhere does not bring the files here for it."""
        return self.look(key)

    def remember(self, entry: Entry) -> None:
        """Keep what the file system said of an entry, so that the next look is quick."""
        self.remember_memo(entry.key, entry.memo)

    def remember_memo(self, name: str, memo: StatMemo) -> None:
        """Keep a memo under a name, if it says anything new."""
        path = self._memo_path(name)
        if memo != StatMemo.load(path):
            with refusals(StoreError, self.root):
                self.disk.write(path, memo.to_json())

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `store gc` away while a build stands on the entries."""
        with contextlib.ExitStack() as stack:
            with refusals(StoreError, self.root):
                stack.enter_context(locks.shared(self.root / "locks" / "store.lock"))
            yield

    @contextlib.contextmanager
    def building(self, key: str, *, note: str, on_wait: Callable[[str], None]) -> Iterator[int]:
        """Be the only builder of a key; wait for another one, told to `on_wait`.

        Yields the lock's descriptor, for the child that does the work.
        """
        lock = locks.exclusive(self._lock_path(key), note=note, on_wait=on_wait)
        with contextlib.ExitStack() as stack:
            with refusals(StoreError, self.root):
                descriptor = stack.enter_context(lock)
            yield descriptor

    def stage_folder(self, key: str) -> Path:
        """An empty folder to build an entry in; only for the holder of the key's lock.

        Raises:
            StoreError: the disk is full or read-only.
        """
        staging = self.root / "staging" / key
        with refusals(StoreError, self.root):
            self.disk.remove(staging)  # a dead builder's: the living one has the lock
            self.disk.make_folder(staging / "output")
        return staging

    def commit(
        self,
        staging: Path,
        ingredients: Ingredients,
        *,
        duration_s: float,
        peak_memory_bytes: int,
        resumed: bool = False,
    ) -> Entry:
        """Make a filled staging folder the entry of its key, in place of a damaged one.

        Args:
            staging: from `stage_folder`.
            ingredients: make the key.
            duration_s, peak_memory_bytes: what it took this time.
            resumed: whether an earlier time had done some of the work.

        Raises:
            StoreError: the disk is full or read-only.
            ValueError: the stage wrote nothing, or a symlink.
        """
        tree = read_tree(staging / "output", StatMemo(), hidden=True)
        if not tree.files or any(path.is_symlink() for path in staging.rglob("*")):
            raise ValueError(f"{ingredients.stage} wrote no file, or a symlink")
        manifest = EntryManifest(
            ingredients=ingredients,
            files=tree.files,
            duration_s=round(duration_s, 3),
            peak_memory_bytes=peak_memory_bytes,
            resumed=resumed,
        )
        key = ingredients.key
        target = self.root / "entries" / key
        with refusals(StoreError, self.root):
            self.disk.sync_tree(staging / "output")
            self.disk.write(staging / "manifest.json", sealed(manifest))
            self.disk.remove(target)
            self.disk.move(staging, target)
        self.unfinished.drop(key)
        memo = unlinked_elsewhere(target / "output", tree.memo)
        entry = Entry(key=key, output=target / "output", manifest=manifest, memo=memo)
        self.remember(entry)
        return entry

    def discard(self, staging: Path) -> None:
        """Drop a staging folder that will not become an entry."""
        with refusals(StoreError, self.root):
            self.disk.remove(staging)

    def sweep(self) -> None:
        """Drop the staging folders of builders that died, and whose workers did; pieces stay."""
        with refusals(StoreError, self.root):
            for folder in sorted((self.root / "staging").glob("[!.]*")):
                with locks.exclusive_if_free(self._lock_path(folder.name)) as free:
                    if free:
                        self.disk.remove(folder)
            for place in ("staging", "kept", "entries"):
                self.disk.sweep(self.root / place)

    def log_path(self, stage: str, key: str) -> Path:
        """Where the stage's noise goes."""
        return self.root / "logs" / f"{stage}-{key[:12]}.log"

    def outside_tree(self, folder: Path, *, hidden: bool) -> Tree:
        """The files of a folder outside the store, quick when its memo was kept.

        Args:
            folder: any folder.
            hidden: whether names with a leading dot count.

        Raises:
            OSError: a file cannot be read.
        """
        return read_tree(folder, StatMemo.load(self._memo_path(folder_memo(folder))), hidden=hidden)

    def entry_keys(self) -> tuple[str, ...]:
        """The keys of all entries, whole or not."""
        folder = self.root / "entries"
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def manifest(self, key: str) -> EntryManifest | Damage:
        """What an entry says that it holds; the files are not looked at."""
        path = self.root / "entries" / key / "manifest.json"
        try:
            manifest = unsealed(path.read_bytes())
        except FileNotFoundError:
            return Damage(key=key, problem="manifest.json is missing")
        except (OSError, ValueError, RecipeError) as error:
            return Damage(key=key, problem=f"manifest.json is damaged: {error}")
        if manifest.ingredients.key != key:
            return Damage(key=key, problem="manifest.json is of another key")
        return manifest

    def _lock_path(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock"

    def _memo_path(self, name: str) -> Path:
        return self.root / "stat" / f"{name}.json"


def folder_memo(folder: Path) -> str:
    """The name of the memo of a folder from outside."""
    return "folder-" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
