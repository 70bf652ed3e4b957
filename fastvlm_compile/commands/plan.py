"""`fastvlm-compile plan`: what a build would run, and why; writes nothing."""

import json
from pathlib import Path

import click

from fastvlm_compile.commands.options import BASE, CHECKPOINT, JSON, RECIPE, STORE


@click.command()
@RECIPE
@CHECKPOINT
@BASE
@STORE
@JSON
def plan(
    *,
    recipe_path: Path,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    as_json: bool,
) -> None:
    """Show each stage of RECIPE with `hit` or the reason why it would be built.

    Writes nothing, not even a store.
    """
    show_plan(recipe_path, checkpoint=checkpoint, base=base, store_root=store_root, as_json=as_json)


def show_plan(
    recipe_path: Path,
    *,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    as_json: bool,
) -> None:
    """Print every stage and its verdict on stdout."""
    from fastvlm_compile.latest import load_record
    from fastvlm_compile.plan import make_plan
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.store import Store
    from fastvlm_compile.verdict import verdicts
    from fastvlm_compile.weights import base_folder, weights_folder

    recipe = load_recipe(recipe_path)
    weights = weights_folder(recipe, recipe_path=recipe_path, chosen=checkpoint)
    merged_into = base_folder(recipe, weights=weights, chosen=base)
    store = Store(root=store_root)
    stages = make_plan(recipe, weights=weights, base=merged_into)
    found = tuple(verdicts(stages, store, load_record(store, recipe.name)))
    if as_json:
        rows = [
            {
                "stage": verdict.stage,
                "state": "miss" if verdict.entry is None else "hit",
                "key": verdict.key,
                "reasons": list(verdict.reasons),
            }
            for verdict in found
        ]
        click.echo(json.dumps({"recipe": recipe.name, "stages": rows}, indent=2))
        return
    width = max(len(verdict.stage) for verdict in found)
    for verdict in found:
        click.echo(f"{verdict.stage.ljust(width)}  {verdict}")
