"""`language.json` read: the decoder's packages, their functions, inputs, outputs and caches.

Written apart from the exporter, and checked, so that one cannot hide the other's mistake.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference.errors import UserError
from validation.signature import Port

FILE = "language.json"
SCHEMA = 1

FunctionName = Literal["prefill", "decode"]


class LanguageLayoutError(UserError):
    """A `language.json` is missing, damaged or contradicts itself."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """`first` .. `first + count - 1`."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One behind the last."""
        return self.first + self.count


@dataclass(frozen=True, kw_only=True)
class CacheTensor:
    """Keys or values of a chunk's layers, [layers, G, S, E].

    Attributes:
        updated: the output that continues the input `name`; empty where `name` is a state.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    updated: str


@dataclass(frozen=True, kw_only=True)
class FunctionLayout:
    """Rows per call, inputs and outputs; the first of each are the rows (or logits)."""

    length: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """One package: layers, rows of the head, or both."""

    package: str
    layers: Span | None
    vocabulary: Span | None
    cache: tuple[CacheTensor, ...]
    functions: Mapping[FunctionName, FunctionLayout]


@dataclass(frozen=True, kw_only=True)
class LanguageLayout:
    """The whole decoder.

    Attributes:
        precision: numpy's name for the type of rows, logits and cache.
        context_length: positions promised to the user.
        cache_length: S, positions that fit; `position` and the rows of a call stay within.
        prefill_chunk: T, rows of `prefill`.
        chunks: in the order of execution.
    """

    precision: str
    context_length: int
    cache_length: int
    prefill_chunk: int
    hidden_size: int
    vocab_size: int
    num_layers: int
    chunks: tuple[ChunkLayout, ...]


def read_layout(folder: Path) -> LanguageLayout:
    """Read `language.json` of a folder.

    Raises:
        LanguageLayoutError: it is missing, damaged, of another schema, or leaves out a layer or a
            token.
    """
    path = folder / FILE
    try:
        return _layout(_mapping(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise LanguageLayoutError(
            f"{path}: there is no such file", hint="build the decoder's packages again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LanguageLayoutError(
            f"{path}: not a description of a decoder: {error!r}", hint="build it again"
        ) from None


def _layout(raw: Mapping[str, object]) -> LanguageLayout:
    if raw["schema"] != SCHEMA:
        raise ValueError(f"schema {raw['schema']!r}, expected {SCHEMA}")
    layout = LanguageLayout(
        precision=str(raw["precision"]),
        context_length=_integer(raw["context_length"]),
        cache_length=_integer(raw["cache_length"]),
        prefill_chunk=_integer(raw["prefill_chunk"]),
        hidden_size=_integer(raw["hidden_size"]),
        vocab_size=_integer(raw["vocab_size"]),
        num_layers=_integer(raw["num_layers"]),
        chunks=tuple(_chunk(_mapping(chunk)) for chunk in _list(raw["chunks"])),
    )
    _check(layout)
    return layout


def _chunk(raw: Mapping[str, object]) -> ChunkLayout:
    functions, cache = _mapping(raw["functions"]), _list(raw["cache"])
    package = str(raw["package"])
    if Path(package).name != package:
        raise ValueError(f"package {package!r} is not a plain file name")
    return ChunkLayout(
        package=package,
        layers=_span(raw["layers"]),
        vocabulary=_span(raw["vocabulary"]),
        cache=tuple(_cache(_mapping(tensor)) for tensor in cache),
        functions={
            "prefill": _function(_mapping(functions["prefill"])),
            "decode": _function(_mapping(functions["decode"])),
        },
    )


def _function(raw: Mapping[str, object]) -> FunctionLayout:
    return FunctionLayout(
        length=_integer(raw["length"]),
        inputs=tuple(_port(_mapping(port)) for port in _list(raw["inputs"])),
        outputs=tuple(_port(_mapping(port)) for port in _list(raw["outputs"])),
    )


def _port(raw: Mapping[str, object]) -> Port:
    return Port(name=str(raw["name"]), dtype=str(raw["dtype"]), dims=_shape(raw["shape"]))


def _cache(raw: Mapping[str, object]) -> CacheTensor:
    return CacheTensor(
        name=str(raw["name"]),
        dtype=str(raw["dtype"]),
        shape=_shape(raw["shape"]),
        updated="" if raw["updated"] is None else str(raw["updated"]),
    )


def _span(raw: object) -> Span | None:
    if raw is None:
        return None
    span = _mapping(raw)
    return Span(first=_integer(span["first"]), count=_integer(span["count"]))


def _shape(raw: object) -> tuple[int, ...]:
    return tuple(_integer(size) for size in _list(raw))


def _mapping(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise TypeError(f"an object is expected, not {raw!r}")
    return raw


def _list(raw: object) -> list[object]:
    if not isinstance(raw, list):
        raise TypeError(f"a list is expected, not {raw!r}")
    return raw


def _integer(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise TypeError(f"a whole number is expected, not {raw!r}")
    return raw


def _check(layout: LanguageLayout) -> None:
    """Every layer once and every token once, in order; functions of the promised lengths."""
    _check_cover("layers", [chunk.layers for chunk in layout.chunks], layout.num_layers)
    _check_cover("vocabulary", [chunk.vocabulary for chunk in layout.chunks], layout.vocab_size)
    for chunk in layout.chunks:
        lengths = tuple(chunk.functions[name].length for name in ("prefill", "decode"))
        if lengths != (layout.prefill_chunk, 1):
            raise ValueError(f"{chunk.package}: functions take {lengths} rows")


def _check_cover(what: str, spans: list[Span | None], total: int) -> None:
    at = 0
    for span in spans:
        if span is not None:
            if span.first != at or span.count < 1:
                raise ValueError(f"{what} {span.first} + {span.count} where {at} should follow")
            at = span.end
    if at != total:
        raise ValueError(f"{what} end at {at}, not at {total}")
