"""Which folder holds the weights of a recipe, and what to do when it does not."""

from pathlib import Path

from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.recipe import Recipe

_RELEASED_SIZES = ("0.5b", "1.5b", "7b")
_RELEASED = "llava-fastvithd_{size}_stage3"
_URL = "https://ml-site.cdn-apple.com/datasets/fastvlm/{name}.zip"


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
    if not (folder / "config.json").is_file():
        raise CheckpointMissingError(
            f"{folder}: this is no checkpoint: it holds no config.json",
            hint=_how_to_get(recipe, folder),
        )
    return folder


def _how_to_get(recipe: Recipe, folder: Path) -> str:
    choice = recipe.checkpoint
    if choice.hub is not None:
        return f"hf download {choice.hub} --revision {choice.revision} --local-dir {folder}"
    size = _size_meant(recipe, folder)
    name = _RELEASED.format(size=size)
    url = _URL.format(name=name)
    out = "DIR" if folder.exists() else folder
    return "\n".join(
        (
            f"fetch the released {size.upper()} model:",
            f"    curl -LO {url} && unzip -q {name}.zip",
            f"    and give it with `--checkpoint {name}`",
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
