"""Two runs that were compared, in one file: to compare them again, or to keep them."""

import json
from dataclasses import dataclass
from pathlib import Path

from validation.latency.samples import LatencyRun, SamplesError, check_run, read_run
from validation.typed_json import read_json, render_json

SCHEMA = 1
_HINT = "`fastvlm-compile latency compare BASE NEW --json FILE` writes one"
_MARK = "interleaved"
"""Stands in every such file, and in no file of one run."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Samples of a base and of what is new."""

    base_name: str
    new_name: str
    """What they are called in tables."""
    interleaved: bool
    """Whether they ran turn by turn in one session."""
    base: LatencyRun
    new: LatencyRun


def render_pair(pair: Pair) -> str:
    """The file of a pair."""
    return render_json(pair, schema=SCHEMA)


def read_stored(path: Path) -> LatencyRun | Pair:
    """A run or a pair, whichever the file holds.

    Raises:
        SamplesError: see `samples.read_run`.
    """
    if not _is_pair(path):
        return read_run(path)
    pair = read_json(path, Pair, schema=SCHEMA, error=lambda what: SamplesError(what, hint=_HINT))
    for run in (pair.base, pair.new):
        check_run(path, run)
    return pair


def read_one(path: Path) -> LatencyRun:
    """A file that holds one run.

    Raises:
        SamplesError: it holds two; or see `samples.read_run`.
    """
    found = read_stored(path)
    if isinstance(found, Pair):
        raise SamplesError(
            f"{path}: samples of two runs that were compared, {found.base_name} and "
            f"{found.new_name}; here it takes one run",
            hint="`fastvlm-compile latency compare FILE` compares them again, `latency history DIR "
            "--add FILE` keeps both",
        )
    return found


def _is_pair(path: Path) -> bool:
    """False as well for what cannot be read, which `read_run` tells."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and _MARK in document
