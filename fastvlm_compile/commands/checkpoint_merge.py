"""`checkpoint merge`, and what `checkpoint inspect` tells of a LoRA fine-tune."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import BASE
from fastvlm_compile.commands.progress_lines import progress_on_stderr

if TYPE_CHECKING:
    from fastvlm_compile.adapter.describe import AdapterSummary


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@BASE
@click.option("--force", is_flag=True, help="Replace a checkpoint that stands there.")
def merge(*, adapter: Path, destination: Path, base: Path | None, force: bool) -> None:
    """Merge the LoRA fine-tune in ADAPTER into its base, as the new checkpoint DESTINATION.

    `build --checkpoint ADAPTER` does the same on its way.
    """
    from fastvlm_compile.adapter.merge import merged_size_bytes, open_adapter, write_merged
    from fastvlm_compile.checkpoint.publish import published_checkpoint

    tune = open_adapter(adapter, base)
    needed_bytes = merged_size_bytes(tune)
    with published_checkpoint(destination, force=force, needed_bytes=needed_bytes) as folder:
        write_merged(tune, folder, progress_on_stderr())
    click.echo(f"wrote {destination}", err=True)


def show_adapter(directory: Path, base: Path | None, *, as_json: bool) -> None:
    """Print what a fine-tune's folder holds.

    Raises:
        VerificationError: it cannot be merged.
    """
    from fastvlm_compile.adapter.describe import describe_adapter
    from fastvlm_compile.errors import VerificationError

    found = describe_adapter(directory, base)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"usable": found.usable}, indent=2))
    else:
        click.echo(_as_text(found))
    if not found.usable:
        raise VerificationError(f"{directory}: the adapter cannot be merged as it is")


def _as_text(found: "AdapterSummary") -> str:
    rows = [
        ("adapter", f"LoRA of rank {found.rank}, alpha {found.alpha:g}, scale {found.scale:g}"),
        ("trained on", found.trained_on or "not told"),
    ]
    if found.merge is None:
        rows.append(("problem", found.problem))
    else:
        layers = ", ".join(f"{count} {name}" for name, count in found.merge.adapted.items())
        rows += [
            ("base", found.merge.base),
            ("size", found.merge.size),
            ("tensors", f"{found.merge.num_tensors} once merged"),
            ("  adapted", f"{sum(found.merge.adapted.values())} ({layers})"),
            ("  replaced", str(len(found.merge.replaced))),
        ]
    return "\n".join(f"{label:<12}  {text}" for label, text in rows)
