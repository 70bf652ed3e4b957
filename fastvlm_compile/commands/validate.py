"""`validate`: measure a bundle again on this machine, with its own goldens."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import JSON

if TYPE_CHECKING:
    from fastvlm_compile.progress import Progress
    from validation.runtimes.coreml_runtime import ComputeUnits


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--compute-units",
    type=click.Choice(["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]),
    default="all",
    show_default=True,
    help="What Core ML may use, on a Mac. One call for each: some combinations end the process.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all measurements and verdicts as JSON.",
)
@JSON
def validate(
    *, bundle: Path, compute_units: "ComputeUnits", report: Path | None, as_json: bool
) -> None:
    """Measure BUNDLE again with the goldens in it, by whatever executes its files here.

    ONNX graphs run in onnxruntime; Core ML packages in Core ML on a Mac, else in the ML Program
    executor. The gates are those of the recipe. Exit code 1 if one fails or nothing could be run.
    """
    from fastvlm_compile.bundle.validate import validate_bundle
    from fastvlm_compile.errors import GateError
    from validation.gate_table import summary, terminal_table
    from validation.gates import all_passed
    from validation.parity_file import render_parity

    with _shown_progress() as progress:
        found = validate_bundle(bundle, progress, compute_units=compute_units)
    if report is not None:
        _write(report, render_parity(found))
    click.echo(render_parity(found) if as_json else terminal_table(found.gates), nl=not as_json)
    if not all_passed(found.gates):
        failed = sum(row.status == "failed" for row in found.gates)
        what = f"{failed} gates failed" if failed else "nothing could be measured here"
        raise GateError(
            f"{bundle}: {what} ({summary(found.gates)})",
            hint="`fastvlm-compile verify` tells whether the files are those that were built",
        )


@contextlib.contextmanager
def _shown_progress() -> Iterator["Progress"]:
    """A live line on a terminal, gone when the work is done."""
    from fastvlm_compile.console import LiveReporter
    from fastvlm_compile.progress import silent

    if not sys.stderr.isatty():
        yield silent
        return
    live = LiveReporter(stream=sys.stderr, columns=shutil.get_terminal_size().columns)
    live.started("validate")
    try:
        yield live.progress
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def _write(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    from fastvlm_compile.errors import OutputError

    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
