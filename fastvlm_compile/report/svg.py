"""SVG as text: elements with escaped content and numbers spelled in one way."""

from xml.sax.saxutils import escape, quoteattr


def element(name: str, *children: str, **attributes: str | float) -> str:
    """`<name attribute="..">children</name>`.

    Args:
        name: of the element.
        children: markup, from `element` or `text`.
        attributes: `_` stands for `-`, and a trailing one is dropped (`class_`); numbers are
            spelled with one decimal.
    """
    pairs = (f" {_name(key)}={quoteattr(_value(value))}" for key, value in attributes.items())
    start = f"<{name}{''.join(pairs)}"
    if not children:
        return f"{start}/>"
    # A line break inside <text> would be drawn as a space.
    inner = "".join(children) if name in ("text", "title", "desc") else _lines(children)
    return f"{start}>{inner}</{name}>"


def text(content: str) -> str:
    """Text as markup."""
    return escape(content)


def spell(value: float) -> str:
    """A coordinate: at most one decimal, never `-0`."""
    rounded = round(value, 1) + 0.0
    return f"{rounded:.1f}".removesuffix(".0")


def _lines(children: tuple[str, ...]) -> str:
    return "\n" + "\n".join(children) + "\n"


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else spell(value)
