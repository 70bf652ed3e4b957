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
    from fastvlm_compile.bundle.validate import Validation
    from fastvlm_compile.progress import Progress
    from validation.runtimes.coreml_runtime import ComputeUnits


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--compute-units",
    type=click.Choice(["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]),
    default="all",
    show_default=True,
    help="What Core ML may use, on a Mac. It runs in a process of its own.",
)
@click.option(
    "--require-core-ml",
    is_flag=True,
    help="Fail where Core ML did not run: for a job on a Mac that must not pass without it.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all measurements and verdicts as JSON.",
)
@JSON
def validate(
    *,
    bundle: Path,
    compute_units: "ComputeUnits",
    require_core_ml: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure BUNDLE again with the goldens in it, by whatever executes its files here.

    ONNX graphs run in onnxruntime; Core ML packages in Core ML on a Mac, else in the ML Program
    executor. The gates are those of the recipe. Exit code 1 if one fails or nothing could be run.
    """
    from fastvlm_compile.bundle.validate import validate_bundle
    from validation.gate_table import terminal_table
    from validation.parity_file import render_parity
    from validation.runtimes.coreml_units import UnitSettings

    with _shown_progress() as progress:
        found = validate_bundle(bundle, progress, core_ml=UnitSettings(units=(compute_units,)))
    parity = found.parity
    if report is not None:
        _write(report, render_parity(parity))
    click.echo(render_parity(parity) if as_json else terminal_table(parity.gates), nl=not as_json)
    _tell_units(found)
    _refuse(bundle, found, require_core_ml=require_core_ml)


def _tell_units(found: "Validation") -> None:
    """How Core ML did, and where it would run what."""
    from validation.runtimes.compute_plan import plan_table
    from validation.runtimes.coreml_units import unit_table

    if not found.units:
        return
    click.echo(unit_table(found.units), err=True)
    for unit in found.units:
        click.echo(plan_table(unit.plans) if unit.plans else unit.plans_reason, err=True)


def _refuse(bundle: Path, found: "Validation", *, require_core_ml: bool) -> None:
    from fastvlm_compile.errors import GateError
    from validation.gate_table import summary
    from validation.gates import all_passed

    gates = found.parity.gates
    if not all_passed(gates):
        failed = sum(row.status == "failed" for row in gates)
        what = f"{failed} gates failed" if failed else "nothing could be measured here"
        raise GateError(
            f"{bundle}: {what} ({summary(gates)})",
            hint="`fastvlm-compile verify` tells whether the files are those that were built",
        )
    if require_core_ml and not found.executed_by_core_ml:
        raise GateError(
            f"{bundle}: Core ML executed nothing ({summary(gates)})",
            hint="it needs macOS 15 and coremltools; leave out --require-core-ml elsewhere",
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
