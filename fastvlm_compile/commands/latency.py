"""`latency`: time a bundle's phases, compare two runs, keep a history."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from fastvlm_compile.latency.measure import Order
    from fastvlm_compile.latency.request import RuntimeChoice, Units
    from validation.latency.samples import LatencyRun

_NO_CLAIM = "ml_program"
_RUN = "run"

F = TypeVar("F", bound=Callable[..., None])


class _RunByDefault(click.Group):
    """`latency DIR` is `latency run DIR`; a folder called `compare` is given as `./compare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


def _lengths(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """`64,280`."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{value!r} is no list of lengths such as 64,280", ctx, option)
    return tuple(dict.fromkeys(int(word) for word in words))


_OPTIONS = (
    click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        type=click.Choice(["onnxruntime", "torch", "torch-compiled", "mlx", "coreml", _NO_CLAIM]),
        help="What computes; repeat it for several.  [default: onnxruntime]",
    ),
    click.option("--variant", "variants", multiple=True, help="Repeat it.  [default: all]"),
    click.option(
        "--compute-units",
        "units",
        multiple=True,
        type=click.Choice(["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]),
        help="Of Core ML; repeat it.  [default: each of them]",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="For the computation.  [default: one a core]"
    ),
    click.option(
        "--prompt-lengths",
        default="64,280",
        show_default=True,
        callback=_lengths,
        help="Positions of the prefills.",
    ),
    click.option(
        "--new-tokens",
        type=click.IntRange(2),
        default=16,
        show_default=True,
        help="Of an answer, end to end.",
    ),
    click.option(
        "--min-seconds",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="Time each phase for so long in each process, and",
    ),
    click.option(
        "--min-runs",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        help="for so many runs.",
    ),
)


def _measuring(default_processes: int) -> Callable[[F], F]:
    """The options of what measures."""

    def add(command: F) -> F:
        processes = click.option(
            "--processes",
            type=click.IntRange(1),
            default=default_processes,
            show_default=True,
            help="For each variant.",
        )
        for option in (processes, *reversed(_OPTIONS)):
            command = option(command)
        return command

    return add


@click.group(cls=_RunByDefault, subcommand_metavar="DIR | compare | history [ARGS]...")
def latency() -> None:
    """Time the phases of a bundle, compare two runs, keep a history."""


@latency.command(_RUN)
@click.argument("bundle", type=click.Path(path_type=Path))
@_measuring(default_processes=3)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Keep all samples."
)
def run_command(*, bundle: Path, json_file: Path | None, **options: object) -> None:
    """Time every phase of BUNDLE's variants, each variant in a process of its own.

    `latency BUNDLE` is short for it. The table goes to stdout; exit code 1 if nothing could be run.
    """
    from fastvlm_compile.errors import GateError
    from fastvlm_compile.latency.files import write_whole
    from fastvlm_compile.latency.live import live_progress
    from fastvlm_compile.latency.measure import measure
    from validation.latency.samples import render_run
    from validation.latency.table import terminal_table

    order = _order(**options)  # type: ignore[arg-type]  # click made them
    with live_progress() as progress:
        (run,) = measure([bundle], order, progress)
    if json_file is not None:
        write_whole(json_file, render_run(run))
    click.echo(terminal_table(run))
    if not run.measured():
        reasons = ", ".join(dict.fromkeys(each.reason for each in run.variants))
        raise GateError(f"{bundle}: nothing could be run: {reasons}")


@latency.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help='Such as "decode.p50>5%" or "int4:prefill.280.p95>10%"; repeat it.',
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option(
    "--allow-different-environments",
    "allow",
    is_flag=True,
    help="Compare across machines or libraries; the result says so.",
)
@_measuring(default_processes=4)
def compare(
    *,
    base: Path,
    new: Path,
    limits: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    allow: bool,
    **options: object,
) -> None:
    """Compare NEW with BASE: two bundles, measured in turns here, or two files of samples.

    Exit code 1 only for what is both significant and over a limit.
    """
    from fastvlm_compile.errors import GateError
    from fastvlm_compile.latency.files import write_whole
    from validation.latency.comparison import compare as compare_runs
    from validation.latency.comparison_text import (
        json_comparison,
        junit_comparison,
        markdown_comparison,
        terminal_comparison,
    )
    from validation.latency.thresholds import parse_threshold

    thresholds = [parse_threshold(limit) for limit in limits]
    one, other, interleaved = _two_runs(base, new, options)
    comparison = compare_runs(
        one,
        other,
        thresholds,
        names=_names(base, new),
        interleaved=interleaved,
        allow_different_environments=allow,
    )
    if junit is not None:
        write_whole(junit, junit_comparison(comparison))
    if markdown is not None:
        write_whole(markdown, markdown_comparison(comparison))
    text = json_comparison(comparison) if as_json else terminal_comparison(comparison) + "\n"
    click.echo(text, nl=False)
    if comparison.failed:
        slower = "; ".join(
            f"{each.change.key} {each.change.phase} {each.change.ratio - 1:+.1%}"
            for each in comparison.failed
        )
        raise GateError(f"{new} is slower than {base}: {slower}")


@latency.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--add",
    "samples",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A file that `latency --json` wrote.",
)
def history(*, folder: Path, samples: Path | None) -> None:
    """Show how the medians of every phase went in the runs that DIR records."""
    from validation.latency.history import append, read_history
    from validation.latency.samples import read_run
    from validation.latency.trend import trend_table

    if samples is not None:
        append(folder, read_run(samples))
    click.echo(trend_table(read_history(folder)))


def _two_runs(
    base: Path, new: Path, options: dict[str, object]
) -> "tuple[LatencyRun, LatencyRun, bool]":
    """The runs, and whether they were measured in turns."""
    from fastvlm_compile.latency.live import live_progress
    from fastvlm_compile.latency.measure import measure
    from validation.latency.samples import read_run

    if base.is_dir() != new.is_dir():
        folder, file = (base, new) if base.is_dir() else (new, base)
        raise click.UsageError(
            f"{folder} is a bundle and {file} is not: give two bundles, or two files of samples"
        )
    if not base.is_dir():
        return read_run(base), read_run(new), False
    order = _order(**options)  # type: ignore[arg-type]  # click made them
    with live_progress() as progress:
        one, other = measure([base, new], order, progress)
    return one, other, True


def _names(base: Path, new: Path) -> tuple[str, str]:
    """What the tables call them: names where these differ."""
    if base.name != new.name:
        return base.name, new.name
    return "base", "new"


def _order(
    *,
    runtimes: "tuple[RuntimeChoice, ...]",
    variants: tuple[str, ...],
    units: "tuple[Units, ...]",
    threads: int | None,
    prompt_lengths: tuple[int, ...],
    new_tokens: int,
    min_seconds: float,
    min_runs: int,
    processes: int,
) -> "Order":
    from fastvlm_compile.errors import ToolError
    from fastvlm_compile.latency.measure import Order
    from fastvlm_compile.latency.surroundings import default_threads
    from validation.latency.samples import Settings
    from validation.runtimes.coreml_runtime import COMPUTE_UNITS

    if _NO_CLAIM in runtimes:
        raise ToolError(
            "the ML Program executor is a checker, not a runtime: its time says nothing about "
            "Core ML's",
            hint="--runtime coreml on a Mac, or --runtime onnxruntime here",
        )
    settings = Settings(
        threads=threads or default_threads(),
        prompt_lengths=prompt_lengths,
        min_seconds=min_seconds,
        min_runs=min_runs,
    )
    return Order(
        runtimes=runtimes or ("onnxruntime",),
        variants=variants,
        units=units or COMPUTE_UNITS,
        settings=settings,
        num_processes=processes,
        num_new_tokens=new_tokens,
    )
