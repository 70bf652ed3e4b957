"""`checkpoint fetch`: a released checkpoint from its official archive."""

import dataclasses
import json
from pathlib import Path

import click

from fastvlm_compile.commands.options import JSON
from fastvlm_compile.commands.progress_lines import progress_on_stderr
from fastvlm_compile.fetch.names import BASE_URL, RELEASES


@click.command()
@click.argument("name", type=click.Choice(list(RELEASES)))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The checkpoint's folder.  [default: checkpoints/<its official name>]",
)
@click.option("--base-url", default=BASE_URL, show_default=True, help="Where the archives lie.")
@click.option("--force", is_flag=True, help="Fetch again and replace what stands there.")
@click.option("--accept-changed", is_flag=True, help="Take another archive than the last time.")
@JSON
def fetch(
    *,
    name: str,
    folder: Path | None,
    base_url: str,
    force: bool,
    accept_changed: bool,
    as_json: bool,
) -> None:
    """Fetch the released checkpoint NAME.

    A fetch that was cut off goes on where it stopped. What was fetched before is verified and not
    fetched again.
    """
    from fastvlm_compile.console import format_bytes
    from fastvlm_compile.fetch.fetch import FetchRequest
    from fastvlm_compile.fetch.fetch import fetch as run_fetch

    release = RELEASES[name]
    request = FetchRequest(
        release=release,
        base_url=base_url,
        folder=folder or Path("checkpoints", release.folder),
        replace=force,
        accept_changed=accept_changed,
    )
    result = run_fetch(request, progress_on_stderr())
    if as_json:
        found = {"folder": str(result.folder), "ending": result.ending}
        click.echo(json.dumps(found | dataclasses.asdict(result.ledger), indent=2))
        return
    ledger = result.ledger
    if result.ending == "already there":
        click.echo(f"already there: {len(ledger.files)} files verified, nothing fetched", err=True)
    else:
        click.echo(
            f"fetched {format_bytes(ledger.archive_bytes)}, sha256 {ledger.archive_sha256}",
            err=True,
        )
    click.echo(result.folder)
