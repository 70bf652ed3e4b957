"""Files on their way into a bundle: copied, digested and screened in one reading."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.errors import BundleError
from fastvlm_compile.tree_digest import FileRecord

_CHUNK_BYTES = 2**22

# Every short string is somewhere in a vocabulary, paths of the building machine among them.
VOCABULARY_FILES = frozenset({"tokenizer.json", "vocab.json", "merges.txt"})


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Finds paths of the building machine in what is about to be published."""

    needles: tuple[bytes, ...]

    @classmethod
    def for_paths(cls, paths: Iterable[Path]) -> "Screen":
        """A screen for these folders and all below them.

        Of a folder right below the root only hidden entries are screened (`/root/.cache`): nodes of
        graphs have names such as `/model/layers.0`, and `/model` says nothing about a machine.
        """
        needles = set()
        for path in paths:
            for spelled in (path.absolute(), path.resolve()):
                num_names = len(spelled.parts) - 1
                if num_names > 1:
                    needles.add(str(spelled).encode())
                elif num_names == 1:
                    needles.add(f"{spelled}/.".encode())
        return cls(needles=tuple(sorted(needles)))

    def check(self, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Passes the chunks of a file on.

        Raises:
            BundleError: a needle is in them.
        """
        overlap = max((len(needle) for needle in self.needles), default=1) - 1
        tail = b""
        for chunk in chunks:
            window = tail + chunk
            for needle in self.needles:
                if needle in window:
                    raise BundleError(
                        f"{name} holds {needle.decode()}, a path of this machine",
                        hint="a bundle must not tell where it was built: remove the path from the "
                        "checkpoint's or the recipe's files",
                    )
            tail = window[-overlap:] if overlap else b""
            yield chunk


def copy_file(source: Path, bundle: Path, name: str, screen: Screen) -> FileRecord:
    """Copies a file to `bundle / name`.

    Raises:
        BundleError: it holds a path of the building machine.
        OSError: it cannot be read or written.
    """
    with source.open("rb") as file:
        return _write(bundle, name, iter(lambda: file.read(_CHUNK_BYTES), b""), screen)


def write_file(content: bytes, bundle: Path, name: str, screen: Screen) -> FileRecord:
    """Writes `content` to `bundle / name`; raises as `copy_file`."""
    return _write(bundle, name, [content], screen)


def _write(bundle: Path, name: str, chunks: Iterable[bytes], screen: Screen) -> FileRecord:
    target = bundle / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size_bytes = hashlib.sha256(), 0
    screened = chunks if target.name in VOCABULARY_FILES else screen.check(name, chunks)
    with target.open("xb") as file:
        for chunk in screened:
            file.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
    return FileRecord(path=name, size_bytes=size_bytes, sha256=digest.hexdigest())
