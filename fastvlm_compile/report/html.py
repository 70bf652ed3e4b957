"""HTML as text. What is not `Markup` is escaped, so that no name can become markup."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_VOID = frozenset({"meta", "input", "br"})


class Markup(str):
    """Text that is HTML already: made by `tag`, or a file of ours."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        number: whether it is set flush right.
        short: whether its cells stay on one line; those of numbers do anyway.
        long: whether sentences stand in it, which need room.
    """

    title: str
    number: bool = False
    short: bool = False
    long: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Of its cells."""
        names = {"number": self.number, "short": self.short, "long": self.long}
        chosen = [name for name, is_so in names.items() if is_so]
        return {"class_": " ".join(chosen)} if chosen else {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        cells: the first one is the row's heading.
        attributes: of the row, such as `data_status`.
    """

    cells: Sequence[str]
    attributes: dict[str, str]


def tag(name: str, /, *children: str, **attributes: str | bool) -> Markup:
    """`<name attribute="..">children</name>`.

    Args:
        name: of the element.
        children: escaped, unless they are `Markup`.
        attributes: `_` stands for `-`, and a trailing one is dropped (`class_`); True is a bare
            attribute, False is none.
    """
    start = f"<{name}{''.join(map(_attribute, attributes.items()))}>"
    if name in _VOID:
        assert not children, name
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Parts one after another, escaped unless they are `Markup`."""
    return Markup(separator.join(p if isinstance(p, Markup) else escape(p) for p in parts))


def table(
    caption: str,
    columns: Sequence[Column],
    bodies: Sequence[tuple[str, Sequence[Row]]],
    **attributes: str | bool,
) -> Markup:
    """A table with a caption, in a box that scrolls by itself and can be reached by the keyboard.

    Args:
        caption: what it shows.
        columns: one for each cell of a row.
        bodies: groups of rows, each with a heading, which may be empty.
        attributes: of the table.
    """
    head = [tag("th", c.title, scope="col", **c.attributes) for c in columns]
    parts = [
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        *(_body(heading, columns, rows) for heading, rows in bodies if rows),
    ]
    inside = tag("table", join(parts, "\n"), **attributes)
    return tag("div", inside, class_="scroll", role="group", tabindex="0", aria_label=caption)


def rows_of(cells: Iterable[Sequence[str]]) -> list[Row]:
    """Rows without attributes."""
    return [Row(cells=each, attributes={}) for each in cells]


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A list of names and what they stand for."""
    items = (tag("div", tag("dt", name), tag("dd", value), class_="fact") for name, value in pairs)
    return tag("dl", *items, class_="facts")


def folded(summary: str, *content: str, open_: bool = False, **attributes: str | bool) -> Markup:
    """Content that is shown when it is asked for."""
    return tag("details", tag("summary", summary), *content, open=open_, **attributes)


def _body(heading: str, columns: Sequence[Column], rows: Sequence[Row]) -> Markup:
    lines = []
    if heading:
        group = tag("th", heading, scope="rowgroup", colspan=str(len(columns)), class_="group")
        lines.append(tag("tr", group))
    for row in rows:
        (text, column), *rest = zip(row.cells, columns, strict=True)
        cells = [tag("th", text, scope="row", **column.attributes)]
        cells += [tag("td", text, **column.attributes) for text, column in rest]
        lines.append(tag("tr", *cells, **row.attributes))
    return tag("tbody", join(lines, "\n"))


def _attribute(pair: tuple[str, str | bool]) -> str:
    key, value = pair
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escape(value)}"'
