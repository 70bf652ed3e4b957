"""What was fetched, beside the checkpoint: `FOLDER.fetched.json`. Later fetches are held to it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import FetchError

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """One fetched checkpoint."""

    name: str
    """The release, `0.5b-stage3`."""
    url: str
    archive_bytes: int
    archive_sha256: str
    files: Mapping[str, str]
    """Path below the checkpoint's folder -> sha256."""
    schema: int = _SCHEMA


def ledger_path(folder: Path) -> Path:
    """Where the ledger of a checkpoint's folder lies. Not inside: the folder is the archive's."""
    return folder.with_name(f"{folder.name}.fetched.json")


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a checkpoint's folder; None where it was never fetched.

    Raises:
        FetchError: it is damaged.
    """
    path = ledger_path(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        ledger = Ledger(**raw)
        whole = ledger.schema == _SCHEMA and isinstance(ledger.archive_sha256, str)
        if whole and all(isinstance(text, str) for text in ledger.files.values()):
            return ledger
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):
        pass
    raise FetchError(
        f"{path}: not a ledger of a fetched checkpoint",
        hint="remove it to fetch the checkpoint as if for the first time",
    )


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Write the ledger of a checkpoint's folder, whole or not at all."""
    text = json.dumps(dataclasses.asdict(ledger), indent=2, sort_keys=True) + "\n"
    Disk().write(ledger_path(folder), text.encode())
