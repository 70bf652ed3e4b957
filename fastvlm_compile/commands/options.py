"""Options and steps that several commands share."""

from pathlib import Path

import click

RECIPE = click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take the weights from here instead of from where the recipe says.",
)
BASE = click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The checkpoint that a LoRA fine-tune was trained on, if it does not say itself.",
)
STORE = click.option(
    "--store",
    "store_root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path(".store"),
    show_default=True,
    help="Where finished stages are kept.",
)
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle's folder.  [default: dist/<recipe name>]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
