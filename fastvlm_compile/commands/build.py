"""`fastvlm-compile build`: the main job."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import BASE, CHECKPOINT, JSON, OUT, RECIPE, STORE
from fastvlm_compile.commands.plan import show_plan

if TYPE_CHECKING:
    from fastvlm_compile.console import Reporter
    from fastvlm_compile.pipeline import BuildResult


@click.command()
@RECIPE
@CHECKPOINT
@BASE
@STORE
@OUT
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--quiet", is_flag=True, help="One line per stage, no live progress.")
@JSON
def build(
    *,
    recipe_path: Path,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    out: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build RECIPE, check it and publish its bundle.

    Finished stages are kept in the store: a build that was stopped goes on where it stopped.
    A failed gate ends with exit code 1 and publishes nothing.
    """
    if dry_run:
        show_plan(
            recipe_path, checkpoint=checkpoint, base=base, store_root=store_root, as_json=as_json
        )
        return
    from fastvlm_compile.pipeline import BuildRequest
    from fastvlm_compile.pipeline import build as run_build
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.store import Store
    from fastvlm_compile.weights import base_folder, weights_folder

    recipe = load_recipe(recipe_path)
    weights = weights_folder(recipe, recipe_path=recipe_path, chosen=checkpoint)
    request = BuildRequest(
        recipe=recipe,
        weights=weights,
        base=base_folder(recipe, weights=weights, chosen=base),
        store=Store(root=store_root),
        out=out or Path("dist", recipe.name),
        private_paths=(Path.cwd(), Path.home()),
        replaced=checkpoint is not None,
    )
    result = run_build(request, _reporter(quiet=quiet))
    if as_json:
        click.echo(json.dumps(_as_json(result), indent=2))
    else:
        _show(result)


def _reporter(*, quiet: bool) -> "Reporter":
    from fastvlm_compile.console import LineReporter, LiveReporter

    if quiet or not sys.stderr.isatty():
        return LineReporter(stream=sys.stderr)
    columns = shutil.get_terminal_size().columns
    return LiveReporter(stream=sys.stderr, columns=columns)


def _show(result: "BuildResult") -> None:
    """What was not run goes first, with its reason: it must not be taken for passed."""
    from validation.gate_table import executor_notes, summary

    for reason, rows in result.judgement.not_run().items():
        names = dict.fromkeys(f"{row.target}.{row.variant}.{row.component}" for row in rows)
        click.echo(f"not run: {', '.join(names)}: {reason}", err=True)
    for note in executor_notes(result.judgement.rows):
        click.echo(note, err=True)
    click.echo(f"gates: {summary(result.judgement.rows)}", err=True)
    click.echo(f"bundle: {result.ending}", err=True)
    click.echo(result.bundle)


def _as_json(result: "BuildResult") -> dict[str, object]:
    statuses = [row.status for row in result.judgement.rows]
    return {
        "bundle": str(result.bundle),
        "ending": result.ending,
        "report": str(result.judgement.json_path),
        "gates": {status: statuses.count(status) for status in ("passed", "failed", "not run")},
    }
