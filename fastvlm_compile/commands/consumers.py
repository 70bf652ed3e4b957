"""`consumers`: load a bundle with what people load it with, and write down what became of it."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import JSON

if TYPE_CHECKING:
    from fastvlm_compile.console import Reporter
    from validation.consumers.outcome import Outcome
    from validation.consumers.registry import Consumer


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--only",
    "names",
    multiple=True,
    metavar="NAME",
    help="This consumer alone; repeat it for several. Of the others earlier outcomes are kept.",
)
@click.option(
    "--environments",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=Path(".consumers"),
    show_default=True,
    help="Where the consumers are installed, by `make consumers-env`.",
)
@JSON
def consumers(*, bundle: Path, names: tuple[str, ...], environments: Path, as_json: bool) -> None:
    """Load BUNDLE with the programs that people load it with, and compare what they answer.

    The outcomes go into the bundle: reports/consumers.json, the manifest and the model card.
    Exit code 1 if any consumer disagreed.
    """
    from fastvlm_compile.bundle.consumer_checks import check_consumers
    from fastvlm_compile.errors import VerificationError
    from validation.consumers.outcome import Environment

    reporter = _reporter()
    chosen = _chosen(names)

    def told(consumer: "Consumer", outcomes: "Sequence[Outcome]") -> None:
        reporter.tell(consumer.name, _summary(outcomes))

    reporter.started("consumers")
    manifest = check_consumers(
        bundle,
        chosen,
        Environment(root=environments.absolute()),
        progress=reporter.progress,
        told=told,
        private_paths=(Path.cwd(), Path.home()),
    )
    outcomes = manifest.consumers
    if as_json:
        rows = [dataclasses.asdict(outcome) for outcome in outcomes]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        click.echo(_table(outcomes))
    disagreed = [row for row in outcomes if row.status == "disagreed"]
    if disagreed:
        which = ", ".join(dict.fromkeys(row.consumer for row in disagreed))
        raise VerificationError(f"{bundle}: {len(disagreed)} outcomes disagree: {which}")


def _chosen(names: tuple[str, ...]) -> "tuple[Consumer, ...]":
    from validation.consumers.registry import CONSUMERS

    known = [consumer.name for consumer in CONSUMERS]
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"unknown consumer {name!r}; known: {', '.join(known)}", param_hint="--only"
            )
    return tuple(each for each in CONSUMERS if not names or each.name in names)


def _reporter() -> "Reporter":
    from fastvlm_compile.console import LineReporter, LiveReporter

    if not sys.stderr.isatty():
        return LineReporter(stream=sys.stderr)
    return LiveReporter(stream=sys.stderr, columns=shutil.get_terminal_size().columns)


def _summary(outcomes: "Sequence[Outcome]") -> str:
    statuses = [outcome.status for outcome in outcomes]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())


def _table(outcomes: "Sequence[Outcome]") -> str:
    """Aligned columns; the detail comes last, as long as it is."""
    headers = ("consumer", "version", "variant", "outcome", "detail")
    rows = [
        (row.consumer, row.version or "-", row.variant or "-", _shown(row), row.detail)
        for row in outcomes
    ]
    widths = [max(len(line[i]) for line in (headers, *rows)) for i in range(len(headers) - 1)]
    lines = []
    for line in (headers, *rows):
        columns = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)]
        lines.append("  ".join((*columns, line[-1])).rstrip())
    return "\n".join((*lines, _summary(outcomes)))


def _shown(row: "Outcome") -> str:
    status = row.status.replace("_", " ")
    return status.upper() if row.status == "disagreed" else status
