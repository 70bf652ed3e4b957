"""`report`: one page that tells what a bundle is worth."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import STORE

if TYPE_CHECKING:
    from fastvlm_compile.recipe import Recipe


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the page goes.  [default: report-<bundle>.html]",
)
@click.option(
    "--json",
    "json_out",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="The same data as JSON, to a file; without one to stdout, and then there is no page "
    "unless --out asks for it. Give it after BUNDLE.",
)
@click.option(
    "--latency",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Samples that `latency --json FILE` wrote.  [default: reports/latency.json of BUNDLE]",
)
@click.option(
    "--gates",
    "gates",
    type=click.Path(path_type=Path),
    metavar="RECIPE",
    help="Judge the stored measurements by the gates of this recipe, not by the bundle's own.",
)
@STORE
def report(
    *,
    bundle: Path,
    out: Path | None,
    json_out: str | None,
    latency: Path | None,
    gates: Path | None,
    store_root: Path,
) -> None:
    """Write one HTML page, complete in itself, that tells what BUNDLE is worth.

    Nothing is run: the page tells what the build measured, what consumers made of it, and what
    its stages cost if the store still knows. Exit code 0 whatever the verdict is: the page says it.
    """
    from fastvlm_compile.report.page import render_page
    from fastvlm_compile.report.page_data import SCHEMA
    from fastvlm_compile.report.page_reading import ReportRequest, read_report
    from fastvlm_compile.report.page_sections import verdict_title
    from fastvlm_compile.store import Store
    from validation.typed_json import render_json

    if out is None and json_out != "-":
        out = Path(f"report-{bundle.resolve().name}.html")
    for path in (out, Path(json_out) if json_out not in (None, "-") else None):
        _refuse_inside(bundle, path)
    data = read_report(
        ReportRequest(
            bundle=bundle,
            store=Store(root=store_root),
            latency=latency,
            recipe=_recipe(gates),
        )
    )
    if json_out is not None:
        document = render_json(data, schema=SCHEMA)
        if json_out == "-":
            click.echo(document, nl=False)
        else:
            _write(Path(json_out), document)
            click.echo(json_out)
    if out is not None:
        _write(out, render_page(data))
        click.echo(out, err=json_out == "-")
    click.echo(f"{data.name}: {verdict_title(data.verdict)}", err=True)


def _recipe(path: Path | None) -> "Recipe | None":
    from fastvlm_compile.recipe_file import load_recipe

    return load_recipe(path) if path is not None else None


def _refuse_inside(bundle: Path, path: Path | None) -> None:
    """A file more in a bundle is what `verify` calls damage."""
    from fastvlm_compile.errors import OutputError

    if path is not None and path.resolve().is_relative_to(bundle.resolve()):
        raise OutputError(
            f"{path}: a report does not go into the bundle: `verify` would call it added",
            hint="give `--out` a file elsewhere",
        )


def _write(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    from fastvlm_compile.durable import Disk, refusals
    from fastvlm_compile.errors import OutputError

    disk = Disk()
    with refusals(OutputError, path):
        disk.make_folder(path.absolute().parent)
        disk.write(path, text.encode())
