"""`fastvlm-compile coreml`: run, inspect and compare Core ML packages without Core ML."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.corruptions import corruptions
from fastvlm_compile.commands.options import JSON
from fastvlm_compile.errors import OutputError

if TYPE_CHECKING:
    import numpy as np

    from validation.runtimes.ml_program.compare import Comparison, Row
    from validation.runtimes.ml_program.summary import FunctionSummary, Summary
    from validation.runtimes.ml_program.watch import OpRecord, Watch

PACKAGE = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FUNCTION = click.option(
    "--function", metavar="NAME", help="Which function.  [default: the package's]"
)
ROUNDING = click.option(
    "--rounding",
    type=click.Choice(("none", "fp16")),
    default="none",
    show_default=True,
    help="Compute in float32 throughout, or round every fp16-typed result to fp16.",
)


@click.group()
def coreml() -> None:
    """Run, inspect and compare Core ML packages (ML Programs), on any machine.

    Nothing here is executed by Core ML: only a Mac or a device shows what it makes of a package.
    """


@coreml.command()
@click.argument("package", type=PACKAGE)
@click.option("--inputs", "inputs_path", type=FILE, required=True, metavar="F.npz")
@click.option("--outputs", "outputs_path", type=FILE, required=True, metavar="G.npz")
@FUNCTION
@ROUNDING
@click.option("--keep", multiple=True, metavar="NAME", help="Write this intermediate value too.")
@JSON
def run(
    *,
    package: Path,
    inputs_path: Path,
    outputs_path: Path,
    function: str | None,
    rounding: str,
    keep: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run PACKAGE on the arrays of F.npz, write the results to G.npz.

    States start at zero. Tells where the time went, and which values were infinite, not a number
    or near the end of fp16's range.
    """
    from validation.runtimes.ml_program.executable import load
    from validation.runtimes.ml_program.watch import Watch

    executable = load(package, function=function)
    watch = Watch()
    results = executable.run(
        _read_arrays(inputs_path),
        state=executable.make_state(),
        rounding="fp16" if rounding == "fp16" else "none",
        watch=watch,
        keep=keep,
    )
    _write_arrays(outputs_path, results)
    if as_json:
        click.echo(json.dumps(_run_as_json(results, watch), indent=2))
    else:
        _show_run(results, watch)


@coreml.command()
@click.argument("package", type=PACKAGE)
@JSON
def inspect(*, package: Path, as_json: bool) -> None:
    """Tell what PACKAGE holds: functions, ops, weights, Neural Engine obstacles."""
    from validation.runtimes.ml_program.summary import summarize

    summary = summarize(package)
    if as_json:
        click.echo(json.dumps(_summary_as_json(summary), indent=2))
    else:
        _show_summary(summary)


@coreml.command()
@click.argument("first", type=PACKAGE)
@click.argument("second", type=PACKAGE)
@click.option("--inputs", "inputs_path", type=FILE, metavar="F.npz", help="[default: random]")
@FUNCTION
@ROUNDING
@click.option("--tolerance", type=float, default=1e-3, show_default=True, help="Relative L2 error.")
@JSON
def diff(
    *,
    first: Path,
    second: Path,
    inputs_path: Path | None,
    function: str | None,
    rounding: str,
    tolerance: float,
    as_json: bool,
) -> None:
    """Run FIRST and SECOND op by op and name the first place where they diverge.

    Ends with exit code 1 if they do.
    """
    from validation.runtimes.ml_program.compare import compare
    from validation.runtimes.ml_program.executable import load
    from validation.runtimes.ml_program.interface import drawn

    left, right = load(first, function=function), load(second, function=function)
    inputs = _read_arrays(inputs_path) if inputs_path else drawn(left.function, seed=0)
    found = compare(
        left,
        right,
        inputs,
        rounding="fp16" if rounding == "fp16" else "none",
        tolerance=tolerance,
    )
    if as_json:
        click.echo(json.dumps(_comparison_as_json(found), indent=2))
    else:
        _show_comparison(found)
    if found.first_divergence is not None:
        raise click.exceptions.Exit(1)


def _read_arrays(path: Path) -> dict[str, "np.ndarray"]:
    import numpy as np

    from validation.runtimes.ml_program.errors import InputError

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not readable as .npz: {error}", hint="write it with numpy.savez"
        ) from error


def _write_arrays(path: Path, arrays: Mapping[str, "np.ndarray"]) -> None:
    """Write an .npz; it appears whole or not at all.

    Not with `numpy.savez`: there a result called "file" would be taken for its first parameter.
    """
    import numpy as np

    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.save(entry, array, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def _run_as_json(results: Mapping[str, "np.ndarray"], watch: "Watch") -> dict[str, object]:
    return {
        "executed_by_core_ml": False,
        "outputs": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in results.items()
        },
        "seconds_by_op": watch.seconds_by_kind(),
        "non_finite": [asdict(record) for record in watch.non_finite],
        "near_overflow": [asdict(record) for record in watch.near_overflow],
    }


def _show_run(results: Mapping[str, "np.ndarray"], watch: "Watch") -> None:
    for name, array in results.items():
        click.echo(f"{name}: {array.dtype} {list(array.shape)}")
    totals = watch.seconds_by_kind()
    click.echo(f"{len(watch.records)} ops in {sum(totals.values()):.3f} s")
    for kind, seconds in list(totals.items())[:10]:
        click.echo(f"  {seconds:9.4f} s  {kind}")
    _show_records("non-finite", watch.non_finite)
    _show_records(f"above {watch.limit:.0f}", watch.near_overflow)


def _show_records(what: str, records: tuple["OpRecord", ...]) -> None:
    click.echo(f"{what}: {len(records) or 'none'}")
    for record in records:
        count = f", {record.num_non_finite} non-finite" if record.num_non_finite else ""
        click.echo(f"  {record.kind} {record.output}: largest {record.max_abs:.6g}{count}")


def _summary_as_json(summary: "Summary") -> dict[str, object]:
    from validation.runtimes.ml_program.features import describe

    def function(found: "FunctionSummary") -> dict[str, object]:
        return {
            "name": found.name,
            "opset": found.opset,
            "inputs": [describe(feature) for feature in found.inputs],
            "outputs": [describe(feature) for feature in found.outputs],
            "states": [describe(feature) for feature in found.states],
            "ops": dict(found.op_counts),
        }

    return {
        "package": str(summary.path),
        "specification_version": summary.specification_version,
        "default_function": summary.default_function,
        "functions": [function(found) for found in summary.functions],
        "weights": [asdict(kind) for kind in summary.weights],
        "neural_engine_obstacles": [asdict(obstacle) for obstacle in summary.obstacles],
    }


def _show_summary(summary: "Summary") -> None:
    from validation.runtimes.ml_program.features import describe

    click.echo(f"{summary.path}: specification {summary.specification_version}")
    for function in summary.functions:
        default = ", default" if function.name == summary.default_function else ""
        click.echo(f"function {function.name} ({function.opset}{default})")
        for what, features in (
            ("input", function.inputs),
            ("state", function.states),
            ("output", function.outputs),
        ):
            for feature in features:
                click.echo(f"  {what} {describe(feature)}")
        counts = ", ".join(f"{kind} {count}" for kind, count in function.op_counts.items())
        click.echo(f"  {sum(function.op_counts.values())} ops: {counts}")
    total = sum(kind.size_bytes for kind in summary.weights)
    click.echo(f"weights: {total / 1e6:.2f} MB")
    for kind in summary.weights:
        click.echo(f"  {kind.size_bytes / 1e6:9.2f} MB  {kind.kind} ({kind.num_constants})")
    click.echo(f"known Neural Engine obstacles: {len(summary.obstacles) or 'none'}")
    for obstacle in summary.obstacles:
        where = f"{obstacle.function}: " if obstacle.function else ""
        click.echo(f"  {where}{obstacle.what} ({obstacle.count}, first {obstacle.example})")


def _comparison_as_json(found: "Comparison") -> dict[str, object]:
    first = found.first_divergence
    return {
        "executed_by_core_ml": False,
        "tolerance": found.tolerance,
        "first_divergence": None if first is None else asdict(first),
        "rows": [asdict(row) for row in found.rows],
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
    }


def _show_comparison(found: "Comparison") -> None:
    click.echo(
        f"{len(found.rows)} values in common,"
        f" {len(found.only_first)} only in the first, {len(found.only_second)} only in the second"
    )
    if found.first_divergence is None:
        worst = max((row.relative_l2 for row in found.rows), default=0.0)
        click.echo(f"no divergence above {found.tolerance:g}; the largest is {worst:.3g}")
        return
    place = found.rows.index(found.first_divergence)
    click.echo(f"they diverge first at {_row(found.first_divergence)}")
    for row in found.rows[max(0, place - 3) : place]:
        click.echo(f"  before it: {_row(row)}")


def _row(row: "Row") -> str:
    return (
        f"{row.kind} {row.name} {list(row.shape)}:"
        f" relative L2 {row.relative_l2:.3g}, largest difference {row.max_abs:.3g}"
    )


coreml.add_command(corruptions)
