"""What the store keeps of outputs that are not finished: pieces by the key of the entry to be.

A stage's code, config, inputs and tools make the key, so its pieces fit whoever builds it next.
What keeps them is `kept.py`; here they are found, told of and dropped.
"""

from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.durable import Disk, refusals
from fastvlm_compile.errors import StoreError
from fastvlm_compile.kept import holds_work, sweep

_STAGE = ".stage"
"""Beside the pieces: the name of their stage."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """The folder `kept` of the store at `root`."""

    root: Path
    disk: Disk

    def folder(self, key: str) -> Path:
        """Where the pieces of a key are, if there are any."""
        return self.root / "kept" / key

    def holds(self, key: str) -> bool:
        """Whether there are any."""
        return holds_work(self.folder(key))

    def begin(self, key: str, *, stage: str) -> Path:
        """The folder, made and without what was half done; for the holder of the key's lock.

        Raises:
            StoreError: the disk is full or read-only.
        """
        folder = self.folder(key)
        with refusals(StoreError, self.root):
            self.disk.make_folder(folder)
            sweep(folder)
            if not (folder / _STAGE).is_file():
                self.disk.write(folder / _STAGE, stage.encode())
        return folder

    def stages(self) -> dict[str, str]:
        """The stage of each key; empty where a kill came before that was written."""
        found = {}
        for folder in sorted((self.root / "kept").glob("[!.]*")):
            name = folder / _STAGE
            found[folder.name] = name.read_text(encoding="utf-8") if name.is_file() else ""
        return found

    def drop(self, key: str) -> None:
        """Drop the pieces of an entry that is finished, or that nobody wants.

        Raises:
            StoreError: the disk refuses.
        """
        with refusals(StoreError, self.root):
            self.disk.remove(self.folder(key))
