"""`fastvlm-compile plan`: what a build would run, why, and what it takes; writes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import BASE, CHECKPOINT, JSON, RECIPE, STORE

if TYPE_CHECKING:
    from fastvlm_compile.recipe import Recipe


@click.command()
@RECIPE
@CHECKPOINT
@BASE
@STORE
@click.option(
    "--outcomes",
    is_flag=True,
    help="Show instead what the latest build took, and the estimates from before it.",
)
@JSON
def plan(
    *,
    recipe_path: Path,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    outcomes: bool,
    as_json: bool,
) -> None:
    """Show each stage of RECIPE with `hit` or the reason why it would be built, and what it takes.

    Memory is the peak of the stage's processes together, mapped files not counted, disk what it
    writes, time an estimate from rates recorded on one machine. Writes nothing, not even a store.
    """
    if outcomes:
        _show_outcomes(recipe_path, store_root=store_root, as_json=as_json)
        return
    show_plan(recipe_path, checkpoint=checkpoint, base=base, store_root=store_root, as_json=as_json)


def show_plan(
    recipe_path: Path,
    *,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    as_json: bool,
) -> None:
    """Print every stage, its estimate and its verdict on stdout."""
    from fastvlm_compile.cli import tell
    from fastvlm_compile.estimate.forecast import forecast
    from fastvlm_compile.estimate.refusal import refusal
    from fastvlm_compile.estimate.room import room_here
    from fastvlm_compile.estimate.tables import plan_json, plan_table, to_build
    from fastvlm_compile.latest import load_record
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.store import Store
    from fastvlm_compile.verdict import verdicts
    from fastvlm_compile.weights import base_folder, stand_in_note, weights_folder

    recipe = load_recipe(recipe_path)
    weights = weights_folder(recipe, recipe_path=recipe_path, chosen=checkpoint)
    merged_into = base_folder(recipe, weights=weights, chosen=base)
    store = Store(root=store_root)
    whole = forecast(recipe, weights=weights, base=merged_into)
    found = tuple(verdicts(whole.plan, store, load_record(store, recipe.name)))
    refused = refusal(whole, to_build(found), room_here(store_root))
    for warning in (
        stand_in_note(recipe, weights=weights),
        refused.message if refused is not None else "",
    ):
        if warning:
            tell("warning", warning)
    if refused is not None:
        tell("hint", refused.hint)
    if as_json:
        click.echo(json.dumps({**plan_json(found, whole), **_device_json(recipe)}, indent=2))
        return
    for line in _device_lines(recipe):
        click.echo(line, err=True)
    click.echo(plan_table(found, whole))


def _show_outcomes(recipe_path: Path, *, store_root: Path, as_json: bool) -> None:
    from fastvlm_compile.estimate.outcomes import load_outcomes
    from fastvlm_compile.estimate.tables import outcomes_json, outcomes_table
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.store import Store

    name = load_recipe(recipe_path).name
    found = load_outcomes(Store(root=store_root), name)
    if as_json:
        click.echo(json.dumps(outcomes_json(name, found), indent=2))
    else:
        click.echo(outcomes_table(found))


def _device_lines(recipe: "Recipe") -> list[str]:
    """What the recipe's device is sent, and why; nothing without one."""
    from fastvlm_compile.devices import DEVICES
    from fastvlm_compile.recipe_device import chosen_for_device

    if recipe.device is None:
        return []
    chosen = chosen_for_device(recipe)
    return [
        f"device {recipe.device}",
        *(f"    {each.target}.{each.variant}: {each.why}" for each in chosen),
        f"    nothing else: {DEVICES[recipe.device].others}",
    ]


def _device_json(recipe: "Recipe") -> dict[str, object]:
    from fastvlm_compile.devices import DEVICES
    from fastvlm_compile.recipe_device import chosen_for_device

    if recipe.device is None:
        return {"device": None}
    chosen = {f"{each.target}.{each.variant}": each.why for each in chosen_for_device(recipe)}
    others = DEVICES[recipe.device].others
    return {"device": {"name": recipe.device, "chosen": chosen, "others": others}}
