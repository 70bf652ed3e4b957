"""`parity.json`: measurements and, once judged, the verdicts on them.

One format for what a stage writes and for what a bundle ships; numbers as `typed_json` spells them.
"""

from dataclasses import dataclass
from pathlib import Path

from reference.errors import UserError
from validation.gates import GateRow
from validation.measurement import Measurement
from validation.typed_json import read_json, render_json, write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What was measured, and how it was judged (no gates before judging)."""

    measurements: tuple[Measurement, ...]
    gates: tuple[GateRow, ...] = ()


def write_parity(path: Path, report: ParityReport) -> None:
    """Writes the report; equal reports give equal bytes."""
    write_json(path, report, schema=SCHEMA_VERSION)


def render_parity(report: ParityReport) -> str:
    """What `write_parity` writes."""
    return render_json(report, schema=SCHEMA_VERSION)


def read_parity(path: Path) -> ParityReport:
    """Reads what `write_parity` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    return read_json(path, ParityReport, schema=SCHEMA_VERSION, error=_unusable)


def _unusable(what: str) -> UserError:
    return UserError(what, hint="run the build again: the report is made by its parity stages")
