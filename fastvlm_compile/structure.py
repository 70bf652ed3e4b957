"""A tree of plain values -> frozen dataclasses, by their type hints.

One reader for recipes (`yaml_source`) and for configs that cross into the worker (`from_plain`).
Known hints: str, int, float, bool, Path, Literal, tuple[X, ...], Mapping[str, X], dataclasses, any
of them or None, and `Annotated[X, Rule]`. A Path is relative to the file that spells it.

A dataclass may refuse what it was given by raising `UserError` in `__post_init__`.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as hints_of

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.yaml_source import (
    Entry,
    MappingNode,
    Node,
    Place,
    Plain,
    ScalarNode,
    SequenceNode,
    describe,
)
from reference.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on a value beyond its type; `expected` completes `expected ...` in a message."""

    holds: Callable[[Any], bool]
    expected: str


def read(node: Node, kind: type[T]) -> T:
    """The value of type `kind` that a tree spells.

    Raises:
        RecipeError: with the place, what was found and what was expected.
    """
    return cast(T, _read(node, kind, path=""))


def from_plain(value: object, kind: type[T]) -> T:
    """As `read`, from JSON-like values instead of a file's tree.

    Raises:
        RecipeError: as `read`; the place is the fixed text `request`.
    """
    return read(_plain_node(value), kind)


def to_plain(value: object) -> object:
    """The reverse of `from_plain`: dataclasses become dicts, tuples become lists.

    Raises:
        TypeError: a value that has no plain spelling.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} is no plain value; see the hints that `structure` knows")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` when a known name is close, and the list of the known names."""
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    guess = f"did you mean `{close[0]}`? " if close else ""
    return f"{guess}known: {', '.join(known) or 'none'}"


def find(tree: MappingNode, path: Iterable[str | int]) -> Place:
    """The place of a path such as `("gates", 2, "why")`, or of its nearest enclosing value."""
    node: Node = tree
    place = tree.place
    for part in path:
        match node, part:
            case MappingNode(), str() if part in node.entries:
                place = node.entries[part].place
                node = node.entries[part].node
            case SequenceNode(), int() if part < len(node.items):
                node = node.items[part]
                place = node.place
            case _:
                return place
    return place


def _read(node: Node, hint: Any, *, path: str) -> object:
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *rules = get_args(hint)
        value = _read(node, inner, path=path)
        for rule in rules:
            if not rule.holds(value):
                raise _mismatch(node, path, expected=rule.expected)
        return value
    if origin in (Union, types.UnionType):
        return _read_optional(node, hint, path=path)
    if origin is Literal:
        return _read_choice(node, get_args(hint), path=path)
    if origin in (tuple, Mapping):
        return _read_container(node, hint, path=path)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(node, cast(type, hint), path=path)
    return _read_scalar(node, hint, path=path)


def _read_container(node: Node, hint: Any, *, path: str) -> object:
    if get_origin(hint) is tuple:
        if not isinstance(node, SequenceNode):
            raise _mismatch(node, path, expected="a list")
        (inner, _) = get_args(hint)
        return tuple(_read(n, inner, path=f"{path}[{i}]") for i, n in enumerate(node.items))
    if not isinstance(node, MappingNode):
        raise _mismatch(node, path, expected="a mapping")
    (_, inner) = get_args(hint)
    return {k: _read(e.node, inner, path=f"{path}.{k}") for k, e in node.entries.items()}


def _read_optional(node: Node, hint: Any, *, path: str) -> object:
    members = get_args(hint)
    if isinstance(node, ScalarNode) and node.value is None and types.NoneType in members:
        return None
    (kind,) = (member for member in members if member is not types.NoneType)
    return _read(node, kind, path=path)


def _read_choice(node: Node, known: tuple[Plain, ...], *, path: str) -> Plain:
    if isinstance(node, ScalarNode):
        for choice in known:
            if type(choice) is type(node.value) and choice == node.value:
                return choice
    if len(known) == 1:
        raise _mismatch(node, path, expected=str(known[0]))
    found = node.value if isinstance(node, ScalarNode) and isinstance(node.value, str) else ""
    raise _mismatch(
        node,
        path,
        expected=f"one of {', '.join(map(str, known))}",
        hint=nearest(found, map(str, known)).partition(" known:")[0] if found else "",
    )


def _read_scalar(node: Node, kind: type, *, path: str) -> Plain | Path:
    if kind is Path:
        return Path(node.place.file).parent / str(_read_scalar(node, str, path=path))
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if kind not in words:
        raise TypeError(f"{path}: the hint {kind} is not supported")
    if isinstance(node, ScalarNode):
        value = node.value
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is kind and not (isinstance(value, float) and math.isnan(value)):
            return value
        if kind is str and value is not None:
            raise _mismatch(node, path, expected="a text", hint="put it in quotes")
    raise _mismatch(node, path, expected=words[kind])


def _read_dataclass(node: Node, kind: type, *, path: str) -> object:
    if not isinstance(node, MappingNode):
        raise _mismatch(node, path, expected="a mapping")
    hints = hints_of(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key, entry in node.entries.items():
        if key not in fields:
            where = f" in {path}" if path else ""
            raise RecipeError(
                f"{entry.place}: unknown key `{key}`{where}", hint=nearest(key, fields)
            )
    values: dict[str, object] = {}
    for name, field in fields.items():
        below = f"{path}.{name}" if path else name
        if name in node.entries:
            values[name] = _read(node.entries[name].node, hints[name], path=below)
        elif _is_required(field):
            raise RecipeError(
                f"{node.place}: the key `{below}` is missing", hint=_expected(hints[name])
            )
    try:
        return kind(**values)
    except RecipeError:
        raise
    except UserError as refusal:
        at = f"{path}: " if path else ""
        raise RecipeError(f"{node.place}: {at}{refusal.message}", hint=refusal.hint) from refusal


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _expected(hint: Any) -> str:
    """What a missing key should hold, as far as one line can say it."""
    if get_origin(hint) is Annotated:
        inner, *rules = get_args(hint)
        return f"expected {rules[0].expected}" if rules else _expected(inner)
    if get_origin(hint) is Literal:
        known = ", ".join(map(str, get_args(hint)))
        return f"expected one of {known}" if len(get_args(hint)) > 1 else f"expected {known}"
    if get_origin(hint) is tuple:
        return "expected a list"
    if dataclasses.is_dataclass(hint):
        names = ", ".join(field.name for field in dataclasses.fields(hint))
        return f"expected a mapping with the keys {names}"
    return {str: "expected a text", int: "expected a whole number"}.get(hint, "")


def _mismatch(node: Node, path: str, *, expected: str, hint: str = "") -> RecipeError:
    at = f"{path}: " if path else ""
    return RecipeError(f"{node.place}: {at}found {describe(node)}, expected {expected}", hint=hint)


def _plain_node(value: object) -> Node:
    place = Place(file="request", line=1, column=1)
    if isinstance(value, Mapping):
        entries = {str(k): Entry(place=place, node=_plain_node(v)) for k, v in value.items()}
        return MappingNode(place=place, entries=entries)
    if isinstance(value, list | tuple):
        return SequenceNode(place=place, items=tuple(_plain_node(item) for item in value))
    if value is None or isinstance(value, str | int | float | bool):
        return ScalarNode(place=place, value=value)
    raise TypeError(f"{value!r} is no plain value")
