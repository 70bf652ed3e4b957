"""Files and manifests of a store at an fsspec URL.

    <url>/store.json            says what this is
    <url>/objects/ab/<sha256>   a file's bytes under their own digest
    <url>/entries/<key>.json    an entry's sealed manifest, written when all its files are there

Every file appears by a rename from a name of its own, so two machines that send the same file at
once do each other no harm. Its digest is checked whenever it is fetched.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_compile.durable import ASIDE
from fastvlm_compile.errors import StoreError, ToolError
from fastvlm_compile.key import canonical_json
from fastvlm_compile.store import SCHEMA
from fastvlm_compile.tree_digest import FileRecord, sha256_of

_USELESS = {
    "memory": "this is the memory of one process, which no other one sees",
    "http": "this can only be read, and a store is written",
    "https": "this can only be read, and a store is written",
}
_MARKER = {"schema": SCHEMA, "kind": "objects by digest"}


class DamagedObjectError(Exception):
    """A file at the URL is missing or not what its digest says; it was removed."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """An fsspec file system and the folder of it that is the store."""

    files: Any
    """`fsspec.AbstractFileSystem`, which has no types."""
    root: str
    shown: str
    """The URL as messages may tell it."""

    @classmethod
    def at(cls, url: str, *, shown: str) -> "Remote":
        """Reach for a URL; nothing is read or written yet.

        Raises:
            ToolError: fsspec or the library for this protocol is not installed.
            StoreError: there is no such protocol, or its server cannot be reached.
        """
        try:
            import fsspec
        except ImportError:
            raise ToolError(
                f"{shown}: a store at a URL needs fsspec, which is not installed",
                hint="pip install 'fastvlm-compile[dask]'",
            ) from None
        protocol = url.partition("://")[0]
        if protocol not in fsspec.available_protocols():
            raise StoreError(
                f"{shown}: fsspec knows no protocol {protocol}",
                hint="`python -c 'import fsspec; print(fsspec.available_protocols())'` lists them",
            )
        if protocol in _USELESS:
            raise StoreError(
                f"{shown}: {_USELESS[protocol]}",
                hint="choose what every machine can write to: a path, s3://, gs://, sftp://, ...",
            )
        try:
            files, root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise ToolError(f"{shown}: {error}") from error
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{shown}: this cannot be used as a store: {error}") from error
        return cls(files=files, root=root.rstrip("/"), shown=shown)

    def prepare(self) -> None:
        """Make the store if it is not there, and see that files can be written.

        Raises:
            StoreError: they cannot, or something else is kept here.
        """
        with self._refusals():
            found = self._read("store.json")
            if found is None:
                self._write("store.json", canonical_json(_MARKER) + b"\n")
            elif _parsed(found) != _MARKER:
                raise StoreError(
                    f"{self.shown}: the store here has another format: {found[:200]!r}",
                    hint="give `--store` a place of its own",
                )

    def leave(self, name: str) -> None:
        """Leave a small file for others to find.

        Raises:
            StoreError: it cannot be written.
        """
        with self._refusals():
            self._write(name, b"")

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with self._refusals():
            return self._read(name) is not None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._refusals(), contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    def manifest(self, key: str) -> bytes | None:
        """The sealed manifest of an entry; None where there is none."""
        with self._refusals():
            return self._read(f"entries/{key}.json")

    def put_manifest(self, key: str, data: bytes) -> None:
        """Make an entry be there; all its files are."""
        with self._refusals():
            self._write(f"entries/{key}.json", data)

    def drop_manifest(self, key: str) -> None:
        """Make an entry not be there."""
        self.remove(f"entries/{key}.json")

    def holds(self, record: FileRecord) -> bool:
        """Whether a file of this digest is there in its whole length."""
        with self._refusals():
            self.files.invalidate_cache()
            try:
                size: int = self.files.info(self._path(_object(record)))["size"]
            except FileNotFoundError:
                return False
            return size == record.size_bytes

    def put(self, record: FileRecord, source: Path) -> None:
        """Send a file, unless it is there.

        Raises:
            StoreError: it cannot be written.
        """
        if self.holds(record):
            return
        with self._refusals(), self._appearing(_object(record)) as aside:
            self.files.put_file(str(source), aside)

    def get(self, record: FileRecord, target: Path) -> None:
        """Fetch a file to `target`, whose folder is made.

        Raises:
            DamagedObjectError: it is missing or damaged.
            StoreError: the store cannot be read, or this machine's disk is full.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._refusals():
            try:
                self.files.get_file(self._path(_object(record)), str(target))
            except FileNotFoundError:
                raise DamagedObjectError(f"{record.path} is missing") from None
        if target.stat().st_size != record.size_bytes or sha256_of(target) != record.sha256:
            self.remove(_object(record))
            raise DamagedObjectError(f"{record.path} was changed")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _read(self, name: str) -> bytes | None:
        try:
            data: bytes = self.files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        with self._appearing(name) as aside:
            self.files.pipe_file(aside, data)

    @contextlib.contextmanager
    def _appearing(self, name: str) -> Iterator[str]:
        """A path of our own in the same folder; what is written there gets the name in the end."""
        folder = self._path(name).rpartition("/")[0]
        self.files.makedirs(folder, exist_ok=True)
        aside = f"{folder}/{ASIDE}{uuid.uuid4().hex}"
        try:
            yield aside
            self.files.mv(aside, self._path(name))
        except BaseException:
            with contextlib.suppress(OSError, NotImplementedError):
                self.files.rm_file(aside)
            raise

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except NotImplementedError as error:
            raise StoreError(
                f"{self.shown}: this can only be read, and a store is written: {error}",
                hint="choose a protocol that writes: a path, s3://, gs://, abfs://, sftp://, ...",
            ) from error
        except OSError as error:
            raise StoreError(f"{self.shown}: the store cannot be used: {error}") from error


def _object(record: FileRecord) -> str:
    return f"objects/{record.sha256[:2]}/{record.sha256}"


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
