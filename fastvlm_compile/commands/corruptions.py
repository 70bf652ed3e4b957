"""`fastvlm-compile coreml corruptions`: damage saved packages and see what notices."""

import json
import sys
from pathlib import Path

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--goldens",
    "goldens_path",
    type=FOLDER,
    metavar="DIR",
    help="What the reference computed.  [default: `goldens` in FOLDER or above]",
)
@click.option(
    "--config",
    "config_path",
    type=FOLDER,
    metavar="DIR",
    help="Where the model's config.json is.  [default: FOLDER or above]",
)
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Faults, 0 for all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the faults.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def corruptions(
    *,
    folder: Path,
    goldens_path: Path | None,
    config_path: Path | None,
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Damage copies of the packages in FOLDER, one fault at a time, and tell what notices.

    FOLDER is a bundle's `coreml`, or one with `float32` and `float16` in it. Ends with exit code 1
    if a fault of float32 packages goes unnoticed and is not shown to change nothing. Nothing here
    is executed by Core ML.
    """
    from validation.golden_file import open_goldens
    from validation.kill_matrix.matrix import MatrixPlan
    from validation.kill_matrix.table import listed, render
    from validation.kill_matrix.whole import find_epsilons, run_all

    goldens = open_goldens(goldens_path or _beside(folder))
    places = (config_path,) if config_path else _around(folder)
    epsilons = find_epsilons(*places)
    if epsilons is None:
        click.echo("note: no config.json, so the epsilons of norms are not checked", err=True)
    plan = MatrixPlan(limit=limit, seed=seed)
    matrices = run_all(folder, goldens, plan, _tell, epsilons=epsilons)
    if as_json:
        click.echo(json.dumps([listed(matrix) for matrix in matrices], indent=2))
    else:
        for matrix in matrices:
            click.echo("\n".join(render(matrix)))
    if any(matrix.holes for matrix in matrices if matrix.precision == "float32"):
        raise click.exceptions.Exit(1)


def _around(folder: Path) -> tuple[Path, ...]:
    """The folder, a bundle's root above its `coreml`, and above `coreml/float32`."""
    return folder, *folder.resolve().parents[:2]


def _beside(folder: Path) -> Path:
    places = [place / "goldens" for place in _around(folder)]
    return next((place for place in places if place.exists()), places[0])


def _tell(done: int, total: int, what: str) -> None:
    """A line that overwrites itself, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{done}/{total} {what[:90]}", nl=done == total, err=True)
