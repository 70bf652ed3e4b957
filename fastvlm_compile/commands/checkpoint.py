"""`checkpoint`: fetch, inspect, merge, convert and synthesize checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fastvlm_compile.commands.checkpoint_fetch import fetch
from fastvlm_compile.commands.checkpoint_merge import merge, show_adapter
from fastvlm_compile.commands.options import BASE
from fastvlm_compile.commands.progress_lines import progress_on_stderr

if TYPE_CHECKING:
    from fastvlm_compile.checkpoint.inspect import CheckpointSummary

_LAYOUTS = click.Choice(["apple", "transformers"])


@click.group()
def checkpoint() -> None:
    """Fetch, inspect, merge, convert and synthesize checkpoints."""


checkpoint.add_command(fetch)
checkpoint.add_command(merge)


@checkpoint.command()
@click.option("--size", required=True, help="0.5b, 1.5b, 7b or real-tower.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides all values.")
@click.option("--layout", type=_LAYOUTS, default="apple", show_default=True, help="Of the files.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option("--force", is_flag=True, help="Replace a checkpoint that stands there.")
def synthesize(
    *, size: str, seed: int, layout: Literal["apple", "transformers"], out: Path, force: bool
) -> None:
    """Make up a checkpoint: the real names, shapes and files, random weights of real statistics."""
    from fastvlm_compile.checkpoint.publish import published_checkpoint
    from fastvlm_compile.checkpoint.synthesize import plan_size, write_checkpoint

    plan = plan_size(size, layout)
    with published_checkpoint(out, force=force, needed_bytes=plan.size_bytes) as folder:
        write_checkpoint(plan, seed, folder, progress_on_stderr())
    click.echo(f"wrote {out}", err=True)


@checkpoint.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@BASE
@click.option("--deep", is_flag=True, help="Read all values, look for any that is not finite.")
def inspect(*, directory: Path, base: Path | None, as_json: bool, deep: bool) -> None:
    """Tell what the checkpoint in DIRECTORY is and what is wrong with it.

    Exit code 1 if it cannot be used.
    """
    from fastvlm_compile.adapter.folder import is_adapter
    from fastvlm_compile.checkpoint.inspect import inspect_checkpoint
    from fastvlm_compile.errors import VerificationError

    if is_adapter(directory):
        show_adapter(directory, base, as_json=as_json)
        return
    summary = inspect_checkpoint(directory, deep=deep, progress=progress_on_stderr())
    click.echo(json.dumps(_to_json(summary), indent=2) if as_json else _to_text(summary))
    if not summary.usable:
        raise VerificationError(f"{directory}: the checkpoint cannot be used as it is")


@checkpoint.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--to", "layout", required=True, type=_LAYOUTS, help="The layout to write.")
@click.option("--force", is_flag=True, help="Replace a checkpoint that stands there.")
def convert(
    *, source: Path, destination: Path, layout: Literal["apple", "transformers"], force: bool
) -> None:
    """Rewrite the checkpoint in SOURCE in the other layout, into the new folder DESTINATION.

    Nothing is lost: converting back gives the same tensors and the same config.json.
    """
    from fastvlm_compile.adapter.folder import is_adapter
    from fastvlm_compile.checkpoint.convert import converted_size_bytes, write_converted
    from fastvlm_compile.checkpoint.publish import published_checkpoint
    from reference.errors import CheckpointError

    if is_adapter(source):
        raise CheckpointError(
            f"{source}: holds a LoRA adapter, no weights of its own",
            hint=f"merge it first: fastvlm-compile checkpoint merge {source} DIR",
        )
    needed_bytes = converted_size_bytes(source)
    with published_checkpoint(destination, force=force, needed_bytes=needed_bytes) as folder:
        write_converted(source, layout, folder, progress_on_stderr())
    click.echo(f"wrote {destination}", err=True)


def _to_json(summary: "CheckpointSummary") -> dict[str, object]:
    parameters = dataclasses.asdict(summary.parameters) | {"total": summary.parameters.total}
    return dataclasses.asdict(summary) | {"parameters": parameters, "usable": summary.usable}


def _to_text(summary: "CheckpointSummary") -> str:
    from fastvlm_compile.console import format_bytes

    parameters = summary.parameters
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in summary.dtypes.items())
    tied = {True: "is the embedding", False: "is a tensor of its own", None: "cannot be told"}
    tokenizer = "none" if summary.tokenizer_size is None else f"{summary.tokenizer_size:,} ids"
    rows = [
        ("layout", summary.layout),
        ("size", summary.size),
        ("tensors", f"{summary.num_tensors} in {summary.num_files} files ({dtypes})"),
        ("bytes", format_bytes(summary.size_bytes)),
        ("parameters", f"{parameters.total:,}"),
        ("  vision", f"{parameters.vision:,}, and {parameters.unused_head:,} in its unused head"),
        ("  projector", f"{parameters.projector:,}"),
        ("  language", f"{parameters.language:,}"),
        ("image", f"{summary.image_size} pixels, {summary.tokens_per_image} tokens"),
        ("context", f"{summary.context_length:,} positions"),
        ("vocabulary", f"{summary.vocab_size:,} rows, tokenizer {tokenizer}"),
        ("output head", tied[summary.tied]),
    ]
    lines = [f"{label:<12}  {text}" for label, text in rows]
    for problem in summary.problems:
        lines.append(f"{'problem' if problem.fatal else 'note':<12}  {problem.what}")
    return "\n".join(lines)
