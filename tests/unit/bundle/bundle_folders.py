"""What the bundle tests ask of folders."""

from pathlib import Path


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: path -> bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names_in(folder: Path) -> list[str]:
    """What stands in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())
