"""Results as files that appear whole or not at all."""

from pathlib import Path

from fastvlm_compile.errors import OutputError


def write_whole(path: Path, text: str) -> None:
    """Writes beside it and renames.

    Raises:
        OutputError: it cannot be written there.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
