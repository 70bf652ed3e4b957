"""What a checkpoint is, and what is wrong with it, without loading it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.checkpoint.finite import non_finite_tensors
from fastvlm_compile.checkpoint.sizes import size_label
from fastvlm_compile.progress import Progress, silent
from reference.checkpoint.names import (
    EMBED_TOKENS,
    HEAD_PROJECTION,
    LM_HEAD,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
)
from reference.checkpoint.tensors import Checkpoint, scan_checkpoint
from reference.config import Layout
from reference.errors import PromptError
from reference.tokenizer import load_tokenizer

ADAPTER_PATTERNS = ("adapter_model.*", "adapter_config.json", "non_lora_trainables.bin")
"""What a LoRA fine-tune leaves beside, or instead of, the weights."""

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a checkpoint."""

    what: str
    fatal: bool
    """Whether the checkpoint cannot be used as it is."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Trained values by part; BatchNorm's running statistics are not counted."""

    vision: int
    """Without the unused head."""
    unused_head: int
    projector: int
    language: int
    """With the output head where it is a tensor of its own."""

    @property
    def total(self) -> int:
        """All that the files hold, the unused head included."""
        return self.vision + self.unused_head + self.projector + self.language


@dataclass(frozen=True, kw_only=True)
class CheckpointSummary:
    """Everything `checkpoint inspect` tells."""

    layout: Layout
    size: str
    """`0.5B`, `1.5B`, `7B` or `other`."""
    num_tensors: int
    dtypes: Mapping[str, int]
    """Tensors by dtype."""
    parameters: ParameterCounts
    size_bytes: int
    """Bytes of the tensors' values."""
    num_files: int
    image_size: int
    tokens_per_image: int
    context_length: int
    vocab_size: int
    tokenizer_size: int | None
    """Ids that mean something; None where the tokenizer cannot be read."""
    tied: bool | None
    """Whether the output head is the embedding, as the tensors say; None where one is missing."""
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        """No problem is fatal."""
        return not any(problem.fatal for problem in self.problems)


def inspect_checkpoint(
    path: Path, *, deep: bool = False, progress: Progress = silent
) -> CheckpointSummary:
    """Describe a checkpoint directory and list its problems.

    Args:
        path: the directory, in either layout.
        deep: read all values and look for any that is not finite.
        progress: told of each tensor that is read.

    Raises:
        CheckpointError: there is nothing to describe: no config, no weights, a damaged file.
        ConfigError: the config is not FastVLM's.
    """
    checkpoint = scan_checkpoint(path)
    tokenizer_size, tokenizer_problems = _look_at_tokenizer(checkpoint)
    tied = _tied(checkpoint)
    problems = [
        *(Problem(what=problem, fatal=True) for problem in checkpoint.problems),
        *tokenizer_problems,
        *_tie_problems(checkpoint, tied),
        *_adapter_problems(path),
    ]
    if deep:
        problems += (
            Problem(what=f"{name} holds {count} values that are not finite", fatal=True)
            for name, count in non_finite_tensors(checkpoint, progress)
        )
    tensors = checkpoint.tensors
    return CheckpointSummary(
        layout=checkpoint.layout,
        size=size_label(checkpoint.config),
        num_tensors=len(tensors),
        dtypes=dict(sorted(Counter(info.dtype for info in tensors.values()).items())),
        parameters=count_parameters({name: info.shape for name, info in tensors.items()}),
        size_bytes=sum(info.size_bytes for info in tensors.values()),
        num_files=len({info.file for info in tensors.values()}),
        image_size=checkpoint.config.vision.image_size,
        tokens_per_image=checkpoint.config.vision.num_tokens,
        context_length=checkpoint.config.context_length,
        vocab_size=checkpoint.config.text.vocab_size,
        tokenizer_size=tokenizer_size,
        tied=tied,
        problems=tuple(problems),
    )


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> ParameterCounts:
    """Count trained values by canonical name and shape."""
    counts: Counter[str] = Counter()
    for name, shape in shapes.items():
        if not name.endswith(_BUFFERS):
            counts[_part(name)] += math.prod(shape)
    return ParameterCounts(
        vision=counts["vision"],
        unused_head=counts["unused_head"],
        projector=counts["projector"],
        language=counts["language"],
    )


def _part(name: str) -> str:
    if name == HEAD_PROJECTION:
        return "unused_head"
    if name.startswith(VISION_PREFIX):
        return "vision"
    return "projector" if name.startswith(PROJECTOR_PREFIX) else "language"


def _look_at_tokenizer(checkpoint: Checkpoint) -> tuple[int | None, list[Problem]]:
    try:
        size = load_tokenizer(checkpoint.path).vocab_size
    except PromptError as error:
        return None, [Problem(what=f"no usable tokenizer: {error.message}", fatal=True)]
    rows = checkpoint.config.text.vocab_size
    if size > rows:
        what = f"the tokenizer has {size} ids, the embedding only {rows} rows"
        return size, [Problem(what=what, fatal=True)]
    return size, []


def _tied(checkpoint: Checkpoint) -> bool | None:
    if LM_HEAD in checkpoint.tensors and EMBED_TOKENS not in checkpoint.tensors:
        return None
    return checkpoint.tied


def _tie_problems(checkpoint: Checkpoint, tied: bool | None) -> Iterator[Problem]:  # noqa: FBT001 - a fact, not a switch
    claimed = checkpoint.config.text.tie_word_embeddings
    if tied is None or tied == claimed:
        return
    found = "the output head is the embedding" if tied else "the output head is a tensor of its own"
    yield Problem(
        what=f"config.json says tie_word_embeddings: {str(claimed).lower()}, but {found}; "
        "the tensors are believed",
        fatal=False,
    )


def _adapter_problems(path: Path) -> Iterator[Problem]:
    found = sorted(file.name for pattern in ADAPTER_PATTERNS for file in path.glob(pattern))
    if found:
        yield Problem(
            what=f"a LoRA adapter lies beside the weights ({', '.join(found)}); "
            "it is not applied, merge it into the weights first",
            fatal=False,
        )
