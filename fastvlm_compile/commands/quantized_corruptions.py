"""`fastvlm-compile corruptions`: damage quantized artifacts and see what notices."""

import json
import sys
from pathlib import Path

import click

from fastvlm_compile.commands.options import JSON

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--checkpoint",
    "checkpoint_path",
    type=FOLDER,
    metavar="DIR",
    required=True,
    help="The weights that were quantized.",
)
@click.option(
    "--quantized",
    "quantized_paths",
    type=FOLDER,
    metavar="DIR",
    required=True,
    multiple=True,
    help="A folder with quantized.json; again for each part (tower, language).",
)
@click.option(
    "--goldens",
    "goldens_path",
    type=FOLDER,
    metavar="DIR",
    required=True,
    help="What the reference computed.",
)
@click.option("--variant", default="int4", show_default=True, help="Which of FOLDER's ONNX graphs.")
@click.option(
    "--per-kind",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Faults of each kind in each file.",
)
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Faults, 0 for all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the faults.")
@JSON
def corruptions(
    *,
    folder: Path,
    checkpoint_path: Path,
    quantized_paths: tuple[Path, ...],
    goldens_path: Path,
    variant: str,
    per_kind: int,
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Damage copies of the quantized files in FOLDER, one fault at a time, and tell what notices.

    FOLDER is a bundle's `onnx`, `coreml/VARIANT` or `mlx/VARIANT`. Three judges look at each copy:
    identity (decoded and compared with the quantized tensors), conversion (run, and compared with
    the reference that has the same quantized weights) and reference (run, and compared with the
    goldens). Ends with exit code 1 if a fault goes unnoticed and is not shown to change nothing.
    """
    from fastvlm_compile.corruptions.bench import make_bench, open_artifacts, open_references
    from fastvlm_compile.corruptions.matrix import MatrixPlan, run_matrix
    from fastvlm_compile.corruptions.table import listed, render
    from fastvlm_compile.quantize.weights_file import open_quantized
    from reference.checkpoint.tensors import open_checkpoint
    from reference.prompt import load_tokenizer
    from validation.golden_file import open_goldens

    checkpoint = open_checkpoint(checkpoint_path)
    quantized = open_quantized(*quantized_paths)
    artifacts = open_artifacts(folder, checkpoint, quantized, variant=variant)
    references = open_references(
        checkpoint, quantized, open_goldens(goldens_path), load_tokenizer(checkpoint_path), _tell
    )
    bench = make_bench(artifacts, checkpoint, quantized, references)
    plan = MatrixPlan(per_kind=per_kind, limit=limit, seed=seed)
    matrix = run_matrix(bench, plan, _tell)
    if as_json:
        click.echo(json.dumps(listed(matrix), indent=2))
    else:
        click.echo("\n".join(render(matrix)))
    if matrix.holes:
        raise click.exceptions.Exit(1)


def _tell(done: int, total: int, what: str) -> None:
    """A line that overwrites itself, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{done}/{total} {what[:90]}", nl=done == total, err=True)
