"""Frozen dataclasses to JSON and back, checked against their type hints.

JSON has no infinities and no NaN, and measurements have both: in a float's place the strings "inf",
"-inf" and "nan" stand for them. Equal values give equal bytes.

Known hints: str, bool, int, float, Literal of strings, `X | None`, tuple[X, ...],
Mapping[str, X] and dataclasses.
"""

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from reference.errors import UserError

T = TypeVar("T")

_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def write_json(path: Path, value: object, *, schema: int) -> None:
    """Writes a dataclass as an object with the key `schema` in front."""
    path.write_text(render_json(value, schema=schema), encoding="utf-8")


def render_json(value: object, *, schema: int) -> str:
    """What `write_json` writes."""
    document = {"schema": schema, **cast(dict[str, object], to_plain(value))}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, kind: type[T], *, schema: int, error: Callable[[str], UserError]) -> T:
    """Reads what `write_json` wrote.

    Args:
        path: the file.
        kind: the dataclass.
        schema: the only version that is understood.
        error: makes the error for a missing, damaged or foreign file from what is wrong with it.

    Raises:
        UserError: what `error` made.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: there is no such file") from None
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as cause:
        raise error(f"{path}: not valid JSON: {cause}") from None
    found = document.pop("schema", None) if isinstance(document, dict) else document
    if found != schema or isinstance(found, bool):
        raise error(f"{path}: expected schema {schema}, found {found!r}")
    try:
        return from_plain(document, kind)
    except ValueError as cause:
        raise error(f"{path}: damaged: {cause}") from None


def to_plain(value: object) -> object:
    """JSON-like values of a dataclass tree.

    Raises:
        TypeError: a value that has no spelling.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        names = [field.name for field in dataclasses.fields(value)]
        # A float written as 8 and one read back as 8.0 must be the same bytes.
        return {name: to_plain(_widened(getattr(value, name), hints[name])) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{value!r} has no spelling in JSON")


def from_plain(value: object, kind: type[T]) -> T:
    """The reverse of `to_plain`.

    Raises:
        ValueError: naming the place, what was expected and what was found.
    """
    return cast(T, _read(value, kind, at=""))


def _widened(value: object, hint: object) -> object:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(cast(int, value)) if is_whole and float in (hint, *get_args(hint)) else value


def _read(value: object, hint: Any, *, at: str) -> object:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _read(value, inner, at=at)
    if origin is Literal:
        return value if value in args else _refuse(at, " or ".join(map(repr, args)), value)
    if origin is tuple:
        items = value if isinstance(value, list) else _refuse(at, "a list", value)
        return tuple(_read(item, args[0], at=f"{at}[{i}]") for i, item in enumerate(items))
    if dataclasses.is_dataclass(hint) or issubclass(origin or hint, Mapping):
        entries = value if isinstance(value, dict) else _refuse(at, "an object", value)
        if dataclasses.is_dataclass(hint):
            return _read_dataclass(entries, hint, at=at)
        return {key: _read(item, args[1], at=f"{at}.{key}") for key, item in entries.items()}
    return _read_scalar(value, hint, at=at)


def _read_dataclass(value: dict[str, object], kind: Any, *, at: str) -> object:
    names = [field.name for field in dataclasses.fields(kind)]
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{at or 'the file'}: missing {', '.join(missing)}")
    if unknown := [name for name in value if name not in names]:
        raise ValueError(f"{at or 'the file'}: unknown {', '.join(unknown)}")
    hints = get_type_hints(kind)
    return kind(**{name: _read(value[name], hints[name], at=f"{at}.{name}") for name in names})


def _read_scalar(value: object, hint: type, *, at: str) -> object:
    if hint is float:
        if isinstance(value, str) and value in _SPECIAL:
            return _SPECIAL[value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(cast(float, value)) if is_number else _refuse(at, "a number", value)
    if type(value) is not hint:
        return _refuse(at, hint.__name__, value)
    return value


def _refuse(at: str, expected: str, found: object) -> NoReturn:
    raise ValueError(f"{at.lstrip('.')}: expected {expected}, found {found!r}")
