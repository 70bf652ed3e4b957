"""What an entry of the store is, and the manifest that says what it should be."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.key import Ingredients, canonical_json
from fastvlm_compile.structure import from_plain, to_plain
from fastvlm_compile.tree_digest import FileRecord, StatMemo, Tree, digest_of


@dataclass(frozen=True, kw_only=True)
class EntryManifest:
    """What an entry holds, and what it cost; the cost is no part of the digest."""

    ingredients: Ingredients
    files: tuple[FileRecord, ...]
    duration_s: float
    peak_memory_bytes: int
    resumed: bool = False
    """Whether a build that was killed had done some of the work, so that the cost is not all."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A whole entry, verified when it was looked up."""

    key: str
    output: Path
    manifest: EntryManifest
    memo: StatMemo

    @property
    def digest(self) -> str:
        """The digest of the output folder."""
        return digest_of(self.manifest.files)

    @property
    def size_bytes(self) -> int:
        """Of all files of the output."""
        return sum(file.size_bytes for file in self.manifest.files)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """An entry that is not what its manifest says."""

    key: str
    problem: str


def sealed(manifest: EntryManifest) -> bytes:
    """A manifest as a file, with the digest of what it says."""
    body = to_plain(manifest)
    seal = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps({"sha256_of_body": seal, "body": body}, indent=1).encode() + b"\n"


def unsealed(data: bytes) -> EntryManifest:
    """The manifest that a file holds.

    Raises:
        ValueError: the file is not what `sealed` wrote.
        RecipeError: it is of another version of this program.
    """
    document = json.loads(data)
    if not isinstance(document, dict) or set(document) != {"sha256_of_body", "body"}:
        raise ValueError("it has not the keys of a manifest")
    body = document["body"]
    if hashlib.sha256(canonical_json(body)).hexdigest() != document["sha256_of_body"]:
        raise ValueError("its body is not what was sealed")
    return from_plain(body, EntryManifest)


def difference(expected: tuple[FileRecord, ...], tree: Tree) -> str:
    """What is wrong with a folder, naming one file; empty when nothing is."""
    wanted = {file.path: file for file in expected}
    found = {file.path: file for file in tree.files}
    for path in sorted({*wanted, *found}):
        if path not in found:
            return f"{path} is missing"
        if path not in wanted:
            return f"{path} was added"
        if found[path] != wanted[path]:
            return f"{path} was changed"
    return ""
