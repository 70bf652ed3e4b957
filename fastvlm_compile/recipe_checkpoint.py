"""The recipe's key `checkpoint`: where the weights come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.recipe_values import CountOrNone, Text
from reference.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SyntheticCheckpoint:
    """Random weights in the shapes of a released model."""

    size: Literal["0.5b", "1.5b", "7b", "real-tower"]
    seed: CountOrNone
    layout: Literal["apple", "transformers"]


@dataclass(frozen=True, kw_only=True)
class ReleasedCheckpoint:
    """A released model, as `checkpoint fetch` puts it below the working directory."""

    size: Literal["0.5b", "1.5b", "7b"]
    stage: Literal[2, 3]
    """Of the training: 2 ends with the captions, 3 with the instructions."""


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice:
    """Where the weights come from: exactly one of `path`, `hub` with `revision`, `released`,
    `synthetic`; but `synthetic` may stand beside `released`, for where that is not there."""

    path: Path | None = None
    """A checkpoint's folder, relative to the file that names it."""
    base: Path | None = None
    """Where `path` is a LoRA fine-tune: the checkpoint that it was trained on, if the fine-tune
    does not name a folder that is here."""
    hub: Text | None = None
    """`owner/name` on the Hugging Face hub."""
    revision: Text | None = None
    """Commit of `hub`: a branch would name something else tomorrow."""
    released: ReleasedCheckpoint | None = None
    synthetic: SyntheticCheckpoint | None = None

    def __post_init__(self) -> None:
        known = ("path", "hub", "released", "synthetic")
        given = [key for key in known if getattr(self, key) is not None]
        if len(given) != 1 and given != ["released", "synthetic"]:
            found = " and ".join(given) or "none"
            raise UserError(f"found {found}, expected exactly one of {', '.join(known)}")
        if self.released and self.synthetic and self.released.size != self.synthetic.size:
            raise UserError(
                f"found released {self.released.size} and synthetic {self.synthetic.size}, "
                "expected one size"
            )
        if (self.hub is None) != (self.revision is None):
            raise UserError("`hub` and `revision` are given together or not at all")
        if self.base is not None and self.path is None:
            raise UserError("`base` belongs to `path`")
