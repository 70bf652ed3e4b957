"""What the pages of all benchmarks are made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def listed(values: Mapping[str, str]) -> str:
    """As `describe_machine` gives them: `cores 2, torch 2.13.0`."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def write(path: Path, text: str) -> None:
    """Write a report and say where."""
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(path)
