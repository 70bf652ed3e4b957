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


def _folder(context: click.Context, parameter: click.Parameter, value: Path | str) -> Path:
    del context, parameter
    if "://" in str(value):
        raise click.BadParameter(
            "only `build` takes a URL; its copies on this machine are in its --local-store"
        )
    return Path(value)


STORE = click.option(
    "--store",
    "store_root",
    callback=_folder,
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
