"""`verify`: check every byte of a bundle."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastvlm_compile.bundle.verify import Verification


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def verify(*, bundle: Path, as_json: bool) -> None:
    """Check that BUNDLE holds exactly what its manifest says, byte for byte.

    Exit code 1 if any file was changed, is missing, or was added.
    """
    from fastvlm_compile.bundle.verify import verify_bundle
    from fastvlm_compile.errors import VerificationError

    result = verify_bundle(bundle)
    if as_json:
        click.echo(json.dumps(_to_json(result), indent=2, ensure_ascii=False))
    else:
        for problem in result.problems:
            click.echo(f"{problem.kind}: {problem.path}: {problem.detail}")
    if not result.ok:
        count = len(result.problems)
        raise VerificationError(
            f"{bundle}: {count} {'problem' if count == 1 else 'problems'} found",
            hint="build the bundle again, or copy it again from where it was whole",
        )
    if not as_json:
        size_mb = result.size_bytes / 1e6
        click.echo(f"{result.name}: {result.num_files} files, {size_mb:.1f} MB: all as built")


def _to_json(result: "Verification") -> dict[str, object]:
    return {"ok": result.ok, **dataclasses.asdict(result)}
