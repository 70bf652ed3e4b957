"""Faults of files: bytes flipped, ends missing, the wrong file in a place."""

import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

from validation.kill_matrix.draft import Draft
from validation.kill_matrix.mutation import SPEC, WEIGHTS, Mutation

PADDING = "byte between blobs flipped"
LANGUAGE = "language.json"


def file_faults(draft: Draft, file: str, *, seed: int, count: int = 6) -> Iterator[Mutation]:
    """Of one package."""
    random = Random(seed)
    spans = sorted(_spans(draft))
    floats = [span for span in spans if span[2] in (2, 4)]
    for _ in range(count):
        start, size, width = random.choice(floats)
        element = start + width * random.randrange(size // width)
        yield _flip(file, "high byte of a weight flipped", element + width - 1)
        yield _flip(file, "blob record flipped", _records(draft)[element % len(_records(draft))])
    gaps = [a + n for (a, n, _), (b, _, _) in pairwise(spans) if a + n < b - 64]
    for gap in random.sample(gaps, min(2, len(gaps))):
        yield _flip(file, PADDING, gap)
    yield _flip(file, "version of the weight file", 4)
    for kind, path in (("weights cut off", WEIGHTS), ("program cut off", SPEC)):
        yield Mutation(kind=kind, file=file, where=path.name, damage=_cut(path))
    for place in random.sample(range(len(draft.model.SerializeToString())), count):
        yield _flip(file, "byte of the program flipped", place, path=SPEC)
    for path in (WEIGHTS, SPEC, Path("Manifest.json")):
        yield Mutation(kind="file missing", file=file, where=path.name, damage=_remove(path))


def table_faults(path: Path, *, columns: int) -> Iterator[Mutation]:
    """Of the embedding table: rows of `columns` values behind a header."""
    file, size = path.name, path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    width = 4 if b'"F32"' in path.read_bytes()[:header] else 2
    row = width * columns

    def swap(path: Path, first: int, second: int, count: int) -> None:
        data = bytearray(path.read_bytes())
        one, other = header + first, header + second
        data[one : one + count], data[other : other + count] = (
            data[other : other + count],
            data[one : one + count],
        )
        path.write_bytes(data)

    def rolled(path: Path) -> None:
        data = path.read_bytes()
        rows = data[header:]
        path.write_bytes(data[:header] + rows[row:] + rows[:row])

    for first, second in ((0, 1), (11, 300), (431, 435)):
        yield Mutation(
            kind="embedding rows exchanged",
            file=file,
            where=f"tokens {first} and {second}",
            damage=partial(swap, first=first * row, second=second * row, count=row),
        )
    yield Mutation(kind="embedding rows rolled by one", file=file, where="all", damage=rolled)
    yield Mutation(
        kind="embedding channels exchanged",
        file=file,
        where="token 7",
        damage=partial(swap, first=7 * row, second=7 * row + width, count=width),
    )
    for place in (header + width - 1, size - 1, (header + size) // 2 // width * width + width - 1):
        yield _flip(file, "high byte of a weight flipped", place, path=Path())
    for old, new in ((b"embed_tokens", b"embed_tokenz"), (b'"F', b'"G')):
        yield Mutation(
            kind="header of the table",
            file=file,
            where=old.decode(),
            what=f"-> {new.decode()}",
            damage=partial(_replace, old=old, new=new),
        )
    yield Mutation(kind="table cut off", file=file, where="end", damage=_cut(Path()))


def language_faults(folder: Path) -> Iterator[Mutation]:
    """Of `language.json`, which tells how to run the decoder's packages."""
    text = json.loads((folder / LANGUAGE).read_text(encoding="utf-8"))
    chunks = len(text["chunks"])
    for key, new in (("prefill_chunk", 2 * text["prefill_chunk"]), ("schema", 2)):
        yield Mutation(
            kind="language.json", file=LANGUAGE, where=key, what=str(new), damage=_set_key(key, new)
        )
    if chunks > 1:
        yield Mutation(
            kind="chunk order",
            file=LANGUAGE,
            where="reversed",
            damage=_reorder(range(chunks)[::-1]),
        )
    for first in range(chunks - 1):
        yield Mutation(
            kind="chunk order",
            file=LANGUAGE,
            where=f"packages {first + 1} and {first + 2}",
            damage=_exchange_packages(first, first + 1),
        )


def _set_key(key: str, new: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8")) | {key: new}
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


def _reorder(order: range) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["chunks"] = [content["chunks"][place] for place in order]
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


def _exchange_packages(first: int, second: int) -> Callable[[Path], None]:
    """Two chunks name each other's package; layers stay in order, so the file looks right."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        one, other = content["chunks"][first], content["chunks"][second]
        one["package"], other["package"] = other["package"], one["package"]
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


def _spans(draft: Draft) -> Iterator[tuple[int, int, int]]:
    """Start, bytes and bytes per element of each blob's data."""
    for value in draft.blobs().values():
        _, _, size, start = struct.unpack_from("<IIQQ", draft.weights, value.blobFileValue.offset)
        yield start, size, draft.array(value).dtype.itemsize


def _records(draft: Draft) -> list[int]:
    return [int(value.blobFileValue.offset) for value in draft.blobs().values()]


def _flip(file: str, kind: str, place: int, *, path: Path = WEIGHTS) -> Mutation:
    def damage(package: Path) -> None:
        target = package / path
        data = bytearray(target.read_bytes())
        data[place] ^= 0x55
        target.write_bytes(data)

    where = f"{path.name or file} byte {place}"
    return Mutation(kind=kind, file=file, where=where, what="xor 0x55", damage=damage)


def _cut(path: Path) -> Callable[[Path], None]:
    def damage(package: Path) -> None:
        target = package / path
        data = target.read_bytes()
        target.write_bytes(data[: len(data) - 100])

    return damage


def _replace(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def _remove(path: Path) -> Callable[[Path], None]:
    return lambda package: (package / path).unlink()
