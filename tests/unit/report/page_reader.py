"""A page as a parser sees it, which is how a browser and a screen reader do."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "input", "br", "link", "img", "hr", "col"}


@dataclass
class Element:
    """One element, what is in it, and all the text below it."""

    name: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    own_text: list[str] = field(default_factory=list)

    def all(self, *names: str) -> list["Element"]:
        """Every element of these names below this one, in order; of any without names."""
        found = []
        for child in self.children:
            if not names or child.name in names:
                found.append(child)
            found += child.all(*names)
        return found

    @property
    def text(self) -> str:
        """Its own and that of all below."""
        return "".join((*self.own_text, *(child.text for child in self.children)))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.problems.append(f"<{tag}> has an attribute twice")
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1].name != tag:
            self.problems.append(f"</{tag}> ends <{self.open[-1].name}>")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].own_text.append(data)


def parse(page: str) -> Element:
    """The page as a tree; a tag that is not closed, or closes another, fails."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.problems, reader.problems[:3]
    assert [element.name for element in reader.open] == ["document"]
    return reader.root
