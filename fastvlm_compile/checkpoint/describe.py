"""What stage `checkpoint` leaves for the others: `checkpoint.json` and `processor/`."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.checkpoint.inspect import CheckpointSummary, inspect_checkpoint
from fastvlm_compile.checkpoint.small_files import write_processor_folder
from fastvlm_compile.progress import Progress
from reference.checkpoint.names import HEAD_PROJECTION, LM_HEAD
from reference.checkpoint.raw import RawReader
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import PATCH_SIZE
from reference.errors import CheckpointError

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointDescription:
    """The content of `checkpoint.json`."""

    summary: CheckpointSummary
    image_size: int
    """Of the build, pixels; the checkpoint was trained at `summary.image_size`."""
    tokens_per_image: int
    context_length: int
    tensors_sha256: str
    """Of what is computed with: equal for both layouts and any split into files."""


def describe(
    weights: Path, out: Path, progress: Progress, *, image_size: int, context_length: int
) -> None:
    """Write `checkpoint.json` and `processor/` into the empty directory `out`.

    Args:
        weights: a checkpoint in any layout.
        out: where to.
        progress: told of each tensor that is digested.
        image_size: side of the square image of the build, pixels.
        context_length: positions of the build.

    Raises:
        CheckpointError: the checkpoint cannot be used, or not as the build wants it.
        ConfigError, PromptError: its config or tokenizer cannot be used.
    """
    summary = inspect_checkpoint(weights)
    if not summary.usable:
        listing = "\n".join(f"  {problem.what}" for problem in summary.problems if problem.fatal)
        raise CheckpointError(
            f"{weights}: the checkpoint cannot be used:\n{listing}",
            hint="`fastvlm-compile checkpoint inspect` shows all that is known of it",
        )
    checkpoint = open_checkpoint(weights)
    _check_request(checkpoint, image_size, context_length)
    processor = out / "processor"
    processor.mkdir()
    write_processor_folder(weights, processor)
    description = CheckpointDescription(
        summary=summary,
        image_size=image_size,
        tokens_per_image=(image_size // PATCH_SIZE) ** 2,
        context_length=context_length,
        tensors_sha256=digest_tensors(checkpoint, progress),
    )
    content = {"schema": _SCHEMA, **dataclasses.asdict(description)}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (out / "checkpoint.json").write_text(text, encoding="utf-8")


def digest_tensors(
    checkpoint: Checkpoint, progress: Progress, chosen: Collection[str] | None = None
) -> str:
    """sha256 over name, dtype, shape and values of every tensor that is computed with.

    The unused head, BatchNorm's step counters and an output head that repeats the embedding are
    left out, so that a converted checkpoint has the digest of its source.

    Args:
        checkpoint: the tensors are read whole.
        progress: told before each tensor.
        chosen: names of tensors, to leave out all others.
    """
    reader = RawReader(checkpoint.path)
    table = hashlib.sha256()
    wanted = checkpoint.tensors if chosen is None else chosen
    names = sorted(name for name in wanted if _counts(name, tied=checkpoint.tied))
    for index, name in enumerate(names):
        progress(index, len(names), f"digest of {name}")
        info = checkpoint.tensors[name]
        values = hashlib.sha256()
        for block in reader.blocks(info):
            values.update(block)
        table.update(f"{name} {info.dtype} {list(info.shape)} {values.hexdigest()}\n".encode())
    progress(len(names), len(names), "digests taken")
    return table.hexdigest()


def _counts(name: str, *, tied: bool) -> bool:
    if name == HEAD_PROJECTION or name.endswith(".num_batches_tracked"):
        return False
    return not (tied and name == LM_HEAD)


def _check_request(checkpoint: Checkpoint, image_size: int, context_length: int) -> None:
    """A recipe may ask for another resolution, which the tower computes, but not for any."""
    if image_size < PATCH_SIZE or image_size % PATCH_SIZE:
        raise CheckpointError(
            f"image size {image_size} is not a multiple of {PATCH_SIZE}",
            hint=f"this checkpoint was trained at {checkpoint.config.vision.image_size}",
        )
    longest = checkpoint.config.text.max_position_embeddings
    if context_length > longest:
        raise CheckpointError(
            f"context length {context_length} is beyond the {longest} positions of this model",
            hint=f"ask for {checkpoint.config.context_length} or less",
        )
    tokens = (image_size // PATCH_SIZE) ** 2
    if tokens >= context_length:
        raise CheckpointError(
            f"one image of {image_size} pixels takes {tokens} positions, "
            f"the context has {context_length}",
            hint="ask for a longer context or a smaller image",
        )
