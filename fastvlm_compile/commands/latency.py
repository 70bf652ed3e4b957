"""`latency`: time a bundle's phases, compare two runs, keep a history."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.latency_options import Asked, measuring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from validation.latency.comparison import Comparison
    from validation.latency.pair import Pair
    from validation.latency.thresholds import Threshold

_RUN = "run"
_FILE = click.Path(path_type=Path, dir_okay=False)


class _RunByDefault(click.Group):
    """`latency DIR` is `latency run DIR`; a folder called `compare` is given as `./compare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault, subcommand_metavar="DIR | compare | history [ARGS]...")
def latency() -> None:
    """Time the phases of a bundle, compare two runs, keep a history."""


@latency.command(_RUN)
@click.argument("bundle", type=click.Path(path_type=Path))
@measuring(default_processes=3)
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Keep all samples.")
@click.option(
    "--record",
    is_flag=True,
    help="Keep all samples in BUNDLE itself: in reports/latency.json, medians in its model card.",
)
def run_command(*, bundle: Path, json_file: Path | None, record: bool, asked: Asked) -> None:
    """Time every phase of BUNDLE's variants, each variant in a process of its own.

    `latency BUNDLE` is short for it. The table goes to stdout; exit code 1 if nothing could be run.
    """
    from fastvlm_compile.bundle.latency_record import record_latency
    from fastvlm_compile.bundle.verify import refuse_damaged
    from fastvlm_compile.errors import GateError
    from fastvlm_compile.latency.files import refuse_unwritable, write_whole
    from fastvlm_compile.latency.live import live_progress
    from fastvlm_compile.latency.measure import measure
    from validation.latency.samples import render_run
    from validation.latency.table import terminal_table

    order = asked.order()
    refuse_unwritable(json_file)
    if record:
        refuse_damaged(bundle)
    with live_progress() as progress:
        (run,) = measure([bundle], order, progress)
    if json_file is not None:
        write_whole(json_file, render_run(run))
    click.echo(terminal_table(run))
    if not run.measured():
        reasons = ", ".join(dict.fromkeys(each.reason for each in run.variants))
        raise GateError(f"{bundle}: nothing could be run: {reasons}")
    if record:
        record_latency(bundle, run, private_paths=(Path.cwd(), Path.home()))


@latency.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help='Such as "decode.p50>5%" or "int4:prefill.280.p95>10%"; repeat it. One that speaks of '
    "nothing that will be measured is refused at once.",
)
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown.")
@click.option(
    "--json",
    "json_file",
    type=_FILE,
    metavar="FILE",
    help="Keep all samples of both bundles: `compare FILE` compares them again, `history --add "
    "FILE` keeps them.",
)
@click.option("--as-json", is_flag=True, help="Print the comparison as JSON, not as a table.")
@click.option(
    "--allow-different-environments",
    "allow",
    is_flag=True,
    help="Compare across machines or libraries; the result says so.",
)
@measuring(default_processes=4)
def compare(
    *,
    base: Path,
    new: Path | None,
    limits: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    json_file: Path | None,
    as_json: bool,
    allow: bool,
    asked: Asked,
) -> None:
    """Compare NEW with BASE: two bundles, measured in turns here, or two files of samples.

    Given alone, BASE is a file of both that `compare --json` wrote. Exit code 1 only for what is
    both significant and over a limit.
    """
    from fastvlm_compile.errors import GateError
    from fastvlm_compile.latency.files import refuse_unwritable, write_whole
    from validation.latency.comparison import compare as compare_runs
    from validation.latency.comparison_text import junit_comparison, markdown_comparison
    from validation.latency.pair import render_pair
    from validation.latency.thresholds import parse_threshold

    thresholds = [parse_threshold(limit) for limit in limits]
    refuse_unwritable(junit, markdown, json_file)
    pair = _pair(base, new, thresholds, asked, keeping=json_file is not None)
    if json_file is not None:  # before anything is said of them, which may be refused
        write_whole(json_file, render_pair(pair))
    comparison = compare_runs(
        pair.base,
        pair.new,
        thresholds,
        names=(pair.base_name, pair.new_name),
        interleaved=pair.interleaved,
        allow_different_environments=allow,
    )
    if junit is not None:
        write_whole(junit, junit_comparison(comparison))
    if markdown is not None:
        write_whole(markdown, markdown_comparison(comparison))
    click.echo(_told(comparison, as_json=as_json), nl=False)
    if comparison.failed:
        slower = "; ".join(
            f"{each.change.key} {each.change.phase} {each.change.ratio - 1:+.1%}"
            for each in comparison.failed
        )
        raise GateError(f"{pair.new_name} is slower than {pair.base_name}: {slower}")


@latency.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--add",
    "samples",
    type=_FILE,
    metavar="FILE",
    help="A file that `latency --json` or `latency compare --json` wrote; of a comparison both "
    "runs are added, the base first.",
)
def history(*, folder: Path, samples: Path | None) -> None:
    """Show how the medians of every phase went in the runs that DIR records."""
    from validation.latency.history import append, read_history
    from validation.latency.pair import Pair, read_stored
    from validation.latency.trend import trend_table

    if samples is not None:
        found = read_stored(samples)
        append(folder, *((found.base, found.new) if isinstance(found, Pair) else (found,)))
    click.echo(trend_table(read_history(folder)))


def _pair(
    base: Path,
    new: Path | None,
    thresholds: "Sequence[Threshold]",
    asked: Asked,
    *,
    keeping: bool,
) -> "Pair":
    """Both runs: measured in turns, or as they were stored."""
    from validation.latency.pair import Pair, read_one, read_stored

    if new is not None and base.is_dir() != new.is_dir():
        folder, file = (base, new) if base.is_dir() else (new, base)
        raise click.UsageError(
            f"{folder} is a bundle and {file} is not: give two bundles, or two files of samples"
        )
    if new is not None and base.is_dir():
        return _measured(base, new, thresholds, asked)
    if keeping:
        raise click.UsageError("--json keeps what is measured here; these samples are kept already")
    if new is None:
        found = None if base.is_dir() else read_stored(base)
        if not isinstance(found, Pair):
            raise click.UsageError(
                f"{base} is one side alone: give two bundles, two files of samples, or one file "
                "that `compare --json` wrote"
            )
        return found
    names = _names(base, new)
    return Pair(
        base_name=names[0],
        new_name=names[1],
        interleaved=False,
        base=read_one(base),
        new=read_one(new),
    )


def _measured(base: Path, new: Path, thresholds: "Sequence[Threshold]", asked: Asked) -> "Pair":
    from fastvlm_compile.latency.live import live_progress
    from fastvlm_compile.latency.measure import measure
    from fastvlm_compile.latency.planned import planned
    from validation.latency.pair import Pair
    from validation.latency.thresholds import meant_by

    order, bundles, names = asked.order(), [base, new], _names(base, new)
    places = planned(bundles, order)
    for threshold in thresholds:
        meant_by(threshold, places, of="will be measured of both")
    with live_progress() as progress:
        one, other = measure(bundles, order, progress)
    return Pair(base_name=names[0], new_name=names[1], interleaved=True, base=one, new=other)


def _told(comparison: "Comparison", *, as_json: bool) -> str:
    from validation.latency.comparison_text import json_comparison, terminal_comparison

    return json_comparison(comparison) if as_json else terminal_comparison(comparison) + "\n"


def _names(base: Path, new: Path) -> tuple[str, str]:
    """What the tables call them: names where these differ."""
    if base.name != new.name:
        return base.name, new.name
    return "base", "new"
