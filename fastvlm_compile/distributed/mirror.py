"""A store whose entries are kept at a URL; this machine has copies of those that it worked with."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_compile.distributed.remote import DamagedObjectError, Remote
from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import RecipeError, StoreError
from fastvlm_compile.key import Ingredients
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Damage, Entry, EntryManifest, sealed, unsealed
from fastvlm_compile.tree_digest import FileRecord, StatMemo, digest_of


@dataclass(frozen=True, kw_only=True)
class Mirror(Store):
    """The store at `remote`, with copies at `root`.

    An entry that was looked up is here and there; one that was built is sent before it counts.
    """

    remote: Remote
    _held: set[tuple[str, int]] = field(default_factory=set, repr=False, compare=False)
    """Keys whose lock is held through this object, each with the thread that holds it."""

    def open(self) -> None:
        """Make both sides if they are not there.

        Raises:
            StoreError: one of them cannot be written.
        """
        super().open()
        self.remote.prepare()

    def find(self, key: str) -> Entry | Damage | None:
        """The entry as the other side tells of it; its files need not be here."""
        data = self.remote.manifest(key)
        if data is None:
            return None
        manifest = _read(key, data)
        if isinstance(manifest, Damage):
            return manifest
        for file in manifest.files:
            if not self.remote.holds(file):
                return Damage(key=key, problem=f"{file.path} is missing")
        output = self.root / "entries" / key / "output"
        return Entry(key=key, output=output, manifest=manifest, memo=StatMemo())

    def look(self, key: str, *, trust_memo: bool = True) -> Entry | Damage | None:
        """As `Store.look`; what is only there is brought here, what is only here is sent there.

        Raises:
            StoreError: the other side cannot be reached, or a disk is full.
        """
        here = super().look(key, trust_memo=trust_memo)
        if isinstance(here, Entry):
            if self.remote.manifest(key) is None:
                self._send(here)
            return here
        there = self.find(key)
        if not isinstance(there, Entry):
            return there or here
        if (key, threading.get_ident()) in self._held:
            return self._bring(there)
        with self.building(key, note="fetching", on_wait=lambda _holder: None):
            here = super().look(key, trust_memo=trust_memo)
            return here if isinstance(here, Entry) else self._bring(there)

    @contextlib.contextmanager
    def building(self, key: str, *, note: str, on_wait: Callable[[str], None]) -> Iterator[int]:
        """As `Store.building`, among the builders of this machine."""
        with super().building(key, note=note, on_wait=on_wait) as descriptor:
            held = (key, threading.get_ident())
            self._held.add(held)
            try:
                yield descriptor
            finally:
                self._held.discard(held)

    def commit(
        self,
        staging: Path,
        ingredients: Ingredients,
        *,
        duration_s: float,
        peak_memory_bytes: int,
        resumed: bool = False,
    ) -> Entry:
        """As `Store.commit`, on both sides."""
        entry = super().commit(
            staging,
            ingredients,
            duration_s=duration_s,
            peak_memory_bytes=peak_memory_bytes,
            resumed=resumed,
        )
        self._send(entry)
        return entry

    def offer(self, folder: Path, files: tuple[FileRecord, ...]) -> None:
        """Send a source's files, so that every machine can have them.

        Raises:
            StoreError: they cannot be written.
        """
        for file in files:
            self.remote.put(file, folder / file.path)

    def source(self, files: tuple[FileRecord, ...]) -> Path:
        """A folder with a source's files, brought here unless it is whole already.

        Raises:
            StoreError: a file is missing or damaged on the other side, or the disk is full.
        """
        digest = digest_of(files)
        folder = self.root / "sources" / digest
        # As long as a key, so that `store gc` clears the lock away like one.
        name = hashlib.sha256(f"source {digest}".encode()).hexdigest()
        with self.building(name, note="fetching a checkpoint", on_wait=lambda _holder: None):
            tree = self.outside_tree(folder, hidden=True) if folder.is_dir() else None
            if tree is None or tree.digest != digest:
                staging = self.stage_folder(name)
                try:
                    self._fetch_source(files, staging / "output")
                    with refusals(StoreError, self.root):
                        self.disk.sync_tree(staging / "output")
                        self.disk.make_folder(folder.parent)
                        self.disk.remove(folder)
                        self.disk.move(staging / "output", folder)
                finally:
                    self.discard(staging)
        return folder

    def _send(self, entry: Entry) -> None:
        for file in entry.manifest.files:
            self.remote.put(file, entry.output / file.path)
        self.remote.put_manifest(entry.key, sealed(entry.manifest))

    def _bring(self, there: Entry) -> Entry | Damage | None:
        """Copy an entry here; only for the holder of the key's lock."""
        key = there.key
        staging = self.stage_folder(key)
        try:
            for file in there.manifest.files:
                self.remote.get(file, staging / "output" / file.path)
            with refusals(StoreError, self.root):
                self.disk.sync_tree(staging / "output")
                self.disk.write(staging / "manifest.json", sealed(there.manifest))
                self.disk.remove(self.root / "entries" / key)
                self.disk.move(staging, self.root / "entries" / key)
        except DamagedObjectError as damage:
            self.remote.drop_manifest(key)
            return Damage(key=key, problem=str(damage))
        finally:
            self.discard(staging)
        return super().look(key)

    def _fetch_source(self, files: tuple[FileRecord, ...], folder: Path) -> None:
        for file in files:
            try:
                self.remote.get(file, folder / file.path)
            except DamagedObjectError as damage:
                raise StoreError(
                    f"{self.remote.shown}: the checkpoint is damaged there: {damage}",
                    hint="build again: what is missing there is sent again",
                ) from damage


def _read(key: str, data: bytes) -> EntryManifest | Damage:
    try:
        manifest = unsealed(data)
    except (ValueError, RecipeError) as error:
        return Damage(key=key, problem=f"its manifest is damaged: {error}")
    if manifest.ingredients.key != key:
        return Damage(key=key, problem="its manifest is of another key")
    return manifest
