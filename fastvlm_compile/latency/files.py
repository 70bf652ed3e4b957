"""Results as files that appear whole or not at all."""

import os
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


def refuse_unwritable(*paths: Path | None) -> None:
    """Whatever keeps a file from being written, told before an hour of measuring and not after it.

    Raises:
        OutputError: no folder there, or one that may not be written to.
    """
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise OutputError(f"{path} cannot be written: there is no folder {folder}")
        if path.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{path} cannot be written")
