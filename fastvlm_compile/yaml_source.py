"""A YAML file as a tree of plain values that remember where they were written.

Stricter than YAML: no tags, no aliases, no duplicate keys, and scalars are read by the YAML 1.2
core rules, so that `1e-4` is a number and `no` is a text. `extend: base.yaml` merges mappings.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from fastvlm_compile.errors import RecipeError

EXTEND = "extend"

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NAMED_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF)|(\.nan|\.NaN|\.NAN)")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class _Mark(Protocol):
    """What PyYAML's two kinds of marks have in common; both count from 0."""

    line: int
    column: int


Plain = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something was written; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class ScalarNode:
    """A single value."""

    place: Place
    value: Plain


@dataclass(frozen=True, kw_only=True)
class SequenceNode:
    """A list."""

    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One key of a mapping; `place` is the key's."""

    place: Place
    node: "Node"


@dataclass(frozen=True, kw_only=True)
class MappingNode:
    """A mapping with text keys, in the order of the file."""

    place: Place
    entries: Mapping[str, Entry]


Node = ScalarNode | SequenceNode | MappingNode


def load_tree(path: Path) -> MappingNode:
    """The tree of a file with everything that it extends merged in.

    Mappings are merged key by key, lists and single values are replaced, `key: null` takes an
    inherited key away. Every node keeps the place in the file that holds it.

    Raises:
        RecipeError: the file cannot be read, is no YAML, repeats a key or extends itself.
    """
    return _extended(path, chain=())


def parse_tree(text: str, *, file: str) -> MappingNode:
    """The tree of one YAML text; `file` names it in messages. `extend` is an ordinary key here.

    Raises:
        RecipeError: as `load_tree`.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.AliasEvent):
                at = _place(file, event.start_mark)
                raise RecipeError(f"{at}: found the alias *{event.anchor}; write the value out")
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        place = _place(file, error.problem_mark or error.context_mark)
        parts = [part for part in (error.problem, error.context) if part]
        if parts and parts[0].startswith("but "):  # PyYAML's words are in two orders
            parts.reverse()
        found = ", ".join(parts)
        raise RecipeError(f"{place}: this is no YAML: {found}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}:1:1: this is no YAML: {error}") from error
    if root is None:
        raise RecipeError(f"{file}:1:1: found an empty file, expected a mapping")
    tree = _Composer(file=file).node(root)
    if not isinstance(tree, MappingNode):
        raise RecipeError(f"{tree.place}: found {describe(tree)}, expected a mapping")
    return tree


def describe(node: Node) -> str:
    """What a node is, in words, for `found ...` in a message."""
    match node:
        case MappingNode():
            return "a mapping"
        case SequenceNode():
            return "a list"
        case ScalarNode(value=None):
            return "nothing"
        case ScalarNode(value=bool() as value):
            return f"the boolean {str(value).lower()}"
        case ScalarNode(value=str() as value):
            return f'the text "{value}"'
        case ScalarNode(value=value):
            return f"the number {value}"


def _extended(path: Path, *, chain: tuple[Path, ...]) -> MappingNode:
    tree = parse_tree(_read(path), file=str(path))
    extend = tree.entries.get(EXTEND)
    if extend is None:
        return tree
    if not isinstance(extend.node, ScalarNode) or not isinstance(extend.node.value, str):
        raise RecipeError(
            f"{extend.node.place}: extend: found {describe(extend.node)}, expected a file name"
        )
    base_path = path.parent / extend.node.value
    chain = (*chain, path)
    if base_path.resolve() in {link.resolve() for link in chain}:
        names = " -> ".join(link.name for link in (*chain, base_path))
        raise RecipeError(f"{extend.node.place}: extend goes round in a circle: {names}")
    if not base_path.is_file():
        raise RecipeError(
            f"{extend.node.place}: extend: there is no file {base_path}",
            hint="the name is relative to the folder of the file that holds the key",
        )
    return _merged(base=_extended(base_path, chain=chain), over=tree)


def _merged(*, base: MappingNode, over: MappingNode) -> MappingNode:
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        inherited = entries.get(key)
        if inherited is None:
            entries[key] = entry
        elif isinstance(entry.node, ScalarNode) and entry.node.value is None:
            del entries[key]
        elif isinstance(entry.node, MappingNode) and isinstance(inherited.node, MappingNode):
            merged = _merged(base=inherited.node, over=entry.node)
            entries[key] = Entry(place=entry.place, node=merged)
        else:
            entries[key] = entry
    return MappingNode(place=over.place, entries=entries)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: this is no UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class _Composer:
    """PyYAML's nodes -> ours."""

    file: str

    def node(self, node: yaml.Node) -> Node:
        place = _place(self.file, node.start_mark)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return MappingNode(place=place, entries=self._entries(node))
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                items = tuple(self.node(item) for item in node.value)
                return SequenceNode(place=place, items=items)
            case yaml.ScalarNode(tag="tag:yaml.org,2002:str"):
                value = _scalar(node.value) if node.style is None else node.value
                return ScalarNode(place=place, value=value)
            case _:
                tag = node.tag.removeprefix("tag:yaml.org,2002:")
                raise RecipeError(f"{place}: found the tag {tag}; tags have no meaning here")

    def _entries(self, node: yaml.MappingNode) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            place = _place(self.file, key_node.start_mark)
            key = key_node.value
            if not isinstance(key, str):
                raise RecipeError(f"{place}: found a list or mapping as a key, expected a name")
            if key in entries:
                raise RecipeError(
                    f"{place}: the key `{key}` is given twice, first in line "
                    f"{entries[key].place.line}"
                )
            entries[key] = Entry(place=place, node=self.node(value_node))
        return entries


def _scalar(text: str) -> Plain:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if named := _NAMED_FLOAT.fullmatch(text):
        return math.nan if named[3] else float(f"{named[1]}inf")
    return text


def _place(file: str, mark: _Mark | None) -> Place:
    if mark is None:
        return Place(file=file, line=1, column=1)
    return Place(file=file, line=mark.line + 1, column=mark.column + 1)
