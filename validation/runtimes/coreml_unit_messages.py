"""What a process that runs packages on one compute unit is told, and what it answers.

One JSON object a line; arrays travel beside it as `.npz` files in a folder that both know.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from validation.typed_json import from_plain, to_plain

T = TypeVar("T")

CallName = Literal[
    "executor",
    "vision_features",
    "project",
    "logits_after",
    "start",
    "step",
    "select",
    "read_caches",
    "compute_plans",
]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The first line: what to run and by what.

    Attributes:
        factory: `module:function` that makes the unit, see `coreml_unit_child.Factory`.
        compute_units: which processors may be used.
        vision, projector, embedding, language: paths as in `CoreMLPaths`; all but the first are
            empty where the tower alone is run.
        search_path: where modules are looked for: the parent's `sys.path`.
        folder: an existing folder for the arrays.
    """

    factory: str
    compute_units: str
    vision: str
    projector: str
    embedding: str
    language: str
    search_path: tuple[str, ...]
    folder: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """Something to compute.

    Attributes:
        name: what.
        arrays: file name of the inputs, empty for none.
        answer: file name for the outputs.
        session: number of the session that is meant, 0 for none.
        forget: sessions that nobody needs any more.
    """

    name: CallName
    arrays: str = ""
    answer: str = ""
    session: int = 0
    forget: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a call ended.

    Attributes:
        kind: whether there is a result.
        text: a result that is text, or what went wrong.
        hint: how to mend it.
        has_arrays: whether the file `Call.answer` was written.
    """

    kind: Literal["done", "refused"]
    text: str = ""
    hint: str = ""
    has_arrays: bool = False


def encode(message: Opening | Call | Answer) -> bytes:
    """A message as its line."""
    return json.dumps(to_plain(message)).encode() + b"\n"


def decode(line: bytes, kind: type[T]) -> T:
    """The reverse of `encode`.

    Raises:
        ValueError: the line is no such message.
    """
    return from_plain(json.loads(line), kind)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, uncompressed."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: arrays[name] for name in arrays})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote, and removes the file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        path.unlink()
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"no arrays: {error}") from None
    return arrays
