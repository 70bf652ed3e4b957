"""`fastvlm-compile status`: what is built of a recipe; writes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import BASE, CHECKPOINT, JSON, OUT, RECIPE, STORE

if TYPE_CHECKING:
    from fastvlm_compile.status import RecipeStatus

_BUNDLE = {
    "missing": "is not there",
    "published": "is what the latest build published",
    "outdated": "is of an earlier state: stages have to be built again",
    "not ours": "is not what the latest build with this store published",
}


@click.command()
@RECIPE
@CHECKPOINT
@BASE
@STORE
@OUT
@JSON
def status(
    *,
    recipe_path: Path,
    checkpoint: Path | None,
    base: Path | None,
    store_root: Path,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show what is built of RECIPE: stages, gates of the latest build, the bundle."""
    from fastvlm_compile.plan import make_plan
    from fastvlm_compile.recipe_file import load_recipe
    from fastvlm_compile.status import recipe_status
    from fastvlm_compile.store import Store
    from fastvlm_compile.weights import base_folder, weights_folder

    recipe = load_recipe(recipe_path)
    weights = weights_folder(recipe, recipe_path=recipe_path, chosen=checkpoint)
    found = recipe_status(
        make_plan(recipe, weights=weights, base=base_folder(recipe, weights=weights, chosen=base)),
        Store(root=store_root),
        out or Path("dist", recipe.name),
    )
    click.echo(json.dumps(_as_json(found), indent=2) if as_json else _as_text(found))


def _as_text(found: "RecipeStatus") -> str:
    from validation.gate_table import summary

    num_built = len(found.verdicts) - len(found.to_build)
    lines = [f"stages: {num_built} of {len(found.verdicts)} are built"]
    lines += [f"    {verdict.stage}: {verdict}" for verdict in found.to_build]
    gates = summary(found.gates) if found.gates else "not judged yet"
    lines.append(f"gates of the latest build: {gates}")
    lines.append(f"bundle: {found.bundle} {_BUNDLE[found.bundle_state]}")
    return "\n".join(lines)


def _as_json(found: "RecipeStatus") -> dict[str, object]:
    statuses = [row.status for row in found.gates]
    return {
        "recipe": found.recipe,
        "stages": {verdict.stage: verdict.entry is not None for verdict in found.verdicts},
        "gates": {status: statuses.count(status) for status in ("passed", "failed", "not run")},
        "bundle": {"path": str(found.bundle), "state": found.bundle_state},
    }
