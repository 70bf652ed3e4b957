"""Which folder holds the weights of a recipe, and what to do when it does not."""

from pathlib import Path

from fastvlm_compile.adapter.folder import base_of, is_adapter
from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.recipe import Recipe
from reference.errors import CheckpointError

_RELEASED_SIZES = ("0.5b", "1.5b", "7b")


def weights_folder(recipe: Recipe, *, recipe_path: Path, chosen: Path | None) -> Path | None:
    """The checkpoint's folder; None when the recipe asks for a synthetic one.

    Args:
        recipe: names the checkpoint.
        recipe_path: the file it was read from; downloads are looked for beside it.
        chosen: the folder that the command line names instead.

    Raises:
        CheckpointMissingError: it is not there; the hint says what would fetch or make it.
    """
    choice = recipe.checkpoint
    if chosen is None and choice.synthetic is not None:
        return None
    if chosen is not None:
        folder = chosen
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
    size = _size_meant(recipe, folder)
    out = "DIR" if folder.exists() else folder
    return "\n".join(
        (
            f"fetch the released {size.upper()} model:",
            f"    fastvlm-compile checkpoint fetch {size}-stage3 --to {out}",
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
