"""`fastvlm-compile build`: the main job."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import BASE, CHECKPOINT, JSON, OUT
from fastvlm_compile.commands.plan import show_plan

if TYPE_CHECKING:
    from fastvlm_compile.builds import Ending
    from fastvlm_compile.console import Reporter
    from fastvlm_compile.distributed.location import StoreLocation
    from fastvlm_compile.estimate.forecast import Forecast
    from fastvlm_compile.pipeline import BuildRequest, BuildResult
    from fastvlm_compile.store import Store


@click.command()
@click.argument(
    "recipe_paths",
    metavar="RECIPE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@CHECKPOINT
@BASE
@click.option(
    "--store",
    "store_place",
    metavar="DIR|URL",
    default=".store",
    show_default=True,
    help="Where finished stages are kept: a folder, or any URL that fsspec can write to.",
)
@click.option(
    "--local-store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path(".store"),
    show_default=True,
    help="Where copies are kept on this machine, if --store is a URL.",
)
@OUT
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run the stages on the workers of this Dask scheduler: tcp://HOST:PORT.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option(
    "--even-if-too-large",
    is_flag=True,
    help="Build what is estimated to need more memory or disk than there is.",
)
@click.option("--quiet", is_flag=True, help="One line per stage, no live progress.")
@JSON
def build(
    *,
    recipe_paths: tuple[Path, ...],
    checkpoint: Path | None,
    base: Path | None,
    store_place: str,
    local_store: Path,
    out: Path | None,
    scheduler: str | None,
    dry_run: bool,
    even_if_too_large: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build each RECIPE, check it and publish its bundle.

    Finished stages are kept in the store: a build that was stopped goes on where it stopped.
    A failed gate ends with exit code 1 and publishes nothing of its recipe; other recipes go on.
    """
    if len(recipe_paths) > 1 and (checkpoint or base or out):
        raise click.UsageError("--checkpoint, --base and --out are for a build of one recipe")
    if dry_run:
        if "://" in store_place:
            raise click.UsageError("--dry-run looks at a store on this machine")
        for path in recipe_paths:
            show_plan(
                path,
                checkpoint=checkpoint,
                base=base,
                store_root=Path(store_place),
                as_json=as_json,
            )
        return
    store, location = _store(store_place, local_store, shared=scheduler is not None)
    requests = [
        _request(path, checkpoint=checkpoint, base=base, store=store, out=out)
        for path in recipe_paths
    ]
    if scheduler is None and not even_if_too_large:  # elsewhere the workers' own memory counts
        _refuse_too_large(requests, store)
    names = [request.recipe.name for request in requests]
    if len(set(names)) < len(names):
        raise click.UsageError(f"two of these recipes have one name: {', '.join(sorted(names))}")
    reporters = _reporters(names, quiet=quiet)
    if scheduler is None:
        endings = _build_here(requests, reporters)
    else:
        memory = [{} if even_if_too_large else _memory_of(request) for request in requests]
        endings = _build_there(requests, reporters, scheduler, location, memory)
    _show_endings(endings, as_json=as_json)


def _store(place: str, local: Path, *, shared: bool) -> "tuple[Store, StoreLocation]":
    """The store; spelled as the user did, if it is a folder, for messages name it."""
    from fastvlm_compile.distributed.location import StoreLocation
    from fastvlm_compile.store import Store

    location = StoreLocation.parse(place)
    if location.is_url or shared:
        return location.store(local), location
    return Store(root=Path(place)), location


def _request(
    path: Path, *, checkpoint: Path | None, base: Path | None, store: "Store", out: Path | None
) -> "BuildRequest":
    from fastvlm_compile.cli import tell
    from fastvlm_compile.estimate.forecast import forecast
    from fastvlm_compile.pipeline import BuildRequest
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.weights import (
        base_folder,
        stand_in_note,
        weights_folder,
        with_weights_used,
    )

    named = load_recipe(path)
    weights = weights_folder(named, recipe_path=path, chosen=checkpoint)
    if note := stand_in_note(named, weights=weights):
        tell("warning", note)
    recipe = with_weights_used(named, weights=weights)
    merged_into = base_folder(recipe, weights=weights, chosen=base)
    return BuildRequest(
        recipe=recipe,
        weights=weights,
        base=merged_into,
        forecast=forecast(recipe, weights=weights, base=merged_into),
        store=store,
        out=out or Path("dist", recipe.name),
        private_paths=(Path.cwd(), Path.home()),
        replaced=checkpoint is not None,
    )


def _refuse_too_large(requests: "Sequence[BuildRequest]", store: "Store") -> None:
    from fastvlm_compile.estimate.before_build import refuse_too_large
    from fastvlm_compile.estimate.room import room_here

    refuse_too_large([_forecast_of(each) for each in requests], store, room_here(store.root))


def _memory_of(request: "BuildRequest") -> dict[str, int]:
    """What each stage is to find free on its worker."""
    return {name: each.memory_bytes for name, each in _forecast_of(request).stages.items()}


def _forecast_of(request: "BuildRequest") -> "Forecast":
    """Every request of this command has one."""
    assert request.forecast is not None
    return request.forecast


def _build_here(
    requests: "Sequence[BuildRequest]", reporters: "Sequence[Reporter]"
) -> "tuple[Ending, ...]":
    from fastvlm_compile.builds import build_in_turn

    return _raised_if_alone(build_in_turn(requests, reporters))


def _build_there(
    requests: "Sequence[BuildRequest]",
    reporters: "Sequence[Reporter]",
    scheduler: str,
    location: "StoreLocation",
    memory_bytes: "Sequence[Mapping[str, int]]",
) -> "tuple[Ending, ...]":
    from fastvlm_compile.distributed.builds import build_on_cluster

    endings = build_on_cluster(
        requests,
        reporters,
        address=scheduler,
        location=location,
        memory_bytes=memory_bytes,
    )
    return _raised_if_alone(endings)


def _raised_if_alone(endings: "tuple[Ending, ...]") -> "tuple[Ending, ...]":
    """The error of the only recipe is that of the command."""
    if len(endings) == 1 and endings[0].error is not None:
        raise endings[0].error
    return endings


def _reporters(names: Sequence[str], *, quiet: bool) -> "list[Reporter]":
    """One for each recipe, in one view."""
    from fastvlm_compile.console import LineReporter, LiveLines, LiveReporter

    width = max(map(len, names))
    labels = [f"{name.ljust(width)}  " if len(names) > 1 else "" for name in names]
    if quiet or not sys.stderr.isatty():
        return [LineReporter(stream=sys.stderr, label=label) for label in labels]
    columns = shutil.get_terminal_size().columns
    lines = LiveLines(stream=sys.stderr, columns=columns)
    return [
        LiveReporter(stream=sys.stderr, columns=columns, label=label, lines=lines)
        for label in labels
    ]


def _show_endings(endings: "Sequence[Ending]", *, as_json: bool) -> None:
    """Tell how each recipe ended; raises if one failed."""
    from fastvlm_compile.builds import refuse_failed
    from fastvlm_compile.cli import tell

    several = len(endings) > 1
    if as_json:
        documents = [_as_json(each, several=several) for each in endings]
        click.echo(json.dumps(documents if several else documents[0], indent=2))
    for each in endings:
        label = f"{each.recipe}: " if several else ""
        if each.error is not None:
            tell("error", f"{label}{each.error.message}")
            if each.error.hint:
                tell("hint", each.error.hint)
        elif each.result is not None and not as_json:
            _show(each.result, label)
    refuse_failed(endings)


def _show(result: "BuildResult", label: str) -> None:
    """What was not run goes first, with its reason: it must not be taken for passed."""
    from validation.gate_table import executor_notes, summary

    for reason, rows in result.judgement.not_run().items():
        names = dict.fromkeys(f"{row.target}.{row.variant}.{row.component}" for row in rows)
        click.echo(f"{label}not run: {', '.join(names)}: {reason}", err=True)
    for note in executor_notes(result.judgement.rows):
        click.echo(f"{label}{note}", err=True)
    click.echo(f"{label}gates: {summary(result.judgement.rows)}", err=True)
    click.echo(f"{label}bundle: {result.ending}", err=True)
    click.echo(result.bundle)


def _as_json(ending: "Ending", *, several: bool) -> dict[str, object]:
    named: dict[str, object] = {"recipe": ending.recipe} if several else {}
    if ending.error is not None:
        return {**named, "ending": "failed", "error": ending.error.message}
    assert ending.result is not None
    result = ending.result
    statuses = [row.status for row in result.judgement.rows]
    return {
        **named,
        "bundle": str(result.bundle),
        "ending": result.ending,
        "report": str(result.judgement.json_path),
        "gates": {status: statuses.count(status) for status in ("passed", "failed", "not run")},
    }
