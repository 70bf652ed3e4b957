"""Which folder holds the weights of a recipe, and what to do when it does not."""

import dataclasses
from pathlib import Path

from fastvlm_compile.adapter.folder import base_of, is_adapter
from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.fetch.names import RELEASES
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.recipe_checkpoint import CheckpointChoice, ReleasedCheckpoint
from reference.errors import CheckpointError

_RELEASED_SIZES = ("0.5b", "1.5b", "7b")


def weights_folder(recipe: Recipe, *, recipe_path: Path, chosen: Path | None) -> Path | None:
    """The checkpoint's folder; None when the recipe asks for a synthetic one, or stands by with
    one for a released one that is not there.

    Args:
        recipe: names the checkpoint.
        recipe_path: the file it was read from; downloads are looked for beside it.
        chosen: the folder that the command line names instead.

    Raises:
        CheckpointMissingError: it is not there; the hint says what would fetch or make it.
    """
    choice = recipe.checkpoint
    if chosen is None and choice.synthetic is not None and not _is_released_there(choice):
        return None
    if chosen is not None:
        folder = chosen
    elif choice.released is not None:
        folder = released_folder(choice.released)
    elif choice.path is not None:
        folder = choice.path
    else:
        folder = recipe_path.parent / "checkpoints" / f"{choice.hub}@{choice.revision}"
    if not folder.is_dir():
        found = "this is a file, not a folder" if folder.exists() else "there is no such folder"
        raise CheckpointMissingError(
            f"{folder}: the checkpoint is missing: {found}", hint=_how_to_get(recipe, folder)
        )
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        raise CheckpointMissingError(
            f"{folder}: this is no checkpoint: it holds no config.json",
            hint=_how_to_get(recipe, folder),
        )
    return folder


def released_folder(released: ReleasedCheckpoint) -> Path:
    """Where `checkpoint fetch` puts a released checkpoint, below the working directory."""
    return Path("checkpoints", RELEASES[_release_name(released)].folder)


def stand_in_note(recipe: Recipe, *, weights: Path | None) -> str:
    """What is to be told where random weights stand in for released ones; else nothing.

    Args:
        recipe: names the checkpoint.
        weights: from `weights_folder`.
    """
    released = recipe.checkpoint.released
    if weights is not None or released is None:
        return ""
    return (
        f"{released_folder(released)}: the released checkpoint is not there, so random weights of "
        f"its shapes are built instead, and the bundle says so; to fetch it: "
        f"fastvlm-compile checkpoint fetch {_release_name(released)}"
    )


def with_weights_used(recipe: Recipe, *, weights: Path | None) -> Recipe:
    """The recipe that names, of `released` and `synthetic`, only what is built from.

    Args:
        recipe: may name both.
        weights: from `weights_folder`.
    """
    choice = recipe.checkpoint
    if choice.released is None or choice.synthetic is None:
        return recipe
    unused = {"synthetic": None} if weights is not None else {"released": None}
    return dataclasses.replace(recipe, checkpoint=dataclasses.replace(choice, **unused))


def _is_released_there(choice: CheckpointChoice) -> bool:
    return choice.released is not None and released_folder(choice.released).exists()


def _release_name(released: ReleasedCheckpoint) -> str:
    return f"{released.size}-stage{released.stage}"


def base_folder(recipe: Recipe, *, weights: Path | None, chosen: Path | None) -> Path | None:
    """The checkpoint that a LoRA fine-tune is merged into; None for weights that are whole.

    Args:
        recipe: may name it.
        weights: from `weights_folder`.
        chosen: the folder that the command line names instead.

    Raises:
        CheckpointError: it is not there, or is given though the weights are whole.
    """
    if weights is not None and is_adapter(weights):
        named = recipe.checkpoint.base if weights == recipe.checkpoint.path else None
        return base_of(weights, chosen or named)
    if chosen is not None:
        raise CheckpointError(
            f"{weights or 'a synthetic checkpoint'}: the weights are whole, so there is no base",
            hint="leave out --base, or name the adapter's folder with --checkpoint",
        )
    return None


def _how_to_get(recipe: Recipe, folder: Path) -> str:
    choice = recipe.checkpoint
    if choice.hub is not None:
        return f"hf download {choice.hub} --revision {choice.revision} --local-dir {folder}"
    out = "DIR" if folder.exists() else folder
    size, stage = _size_meant(recipe, folder), 3
    if choice.released is not None:
        size, stage = choice.released.size, choice.released.stage
    return "\n".join(
        (
            f"fetch the released {size.upper()} model:",
            f"    fastvlm-compile checkpoint fetch {size}-stage{stage} --to {out}",
            "or make one of its shapes with random weights:",
            f"    fastvlm-compile checkpoint synthesize --size {size} --seed 0 --layout apple "
            f"--out {out}",
            *_tiny(folder),
        )
    )


def _tiny(folder: Path) -> tuple[str, ...]:
    if folder.name != "tiny-checkpoint":
        return ()
    return ("or, in the project's folder, train the tiny one again: make train-tiny",)


def _size_meant(recipe: Recipe, folder: Path) -> str:
    """The released size that the names speak of; the smallest one when they speak of none."""
    names = f"{folder.name} {recipe.name}".lower()
    return next((size for size in reversed(_RELEASED_SIZES) if size in names), _RELEASED_SIZES[0])
