"""A recipe as parts that a smaller disk holds one at a time."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.store import Store
from fastvlm_compile.store_care import drop, inventory
from reference.errors import UserError

GROUPS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "coreml": ("coreml",),
    "mlx": ("mlx", "torch"),
}
"""The targets of each part, by its name."""


class PartsError(UserError):
    """A recipe cannot be built in parts."""


def write_parts(recipe_path: Path, folder: Path) -> dict[str, Path]:
    """Write a recipe for each part, with everything that the whole says of its targets.

    Args:
        recipe_path: of the whole.
        folder: where to.

    Returns:
        The files, by the names of the parts.

    Raises:
        PartsError: a target needs two others.
        UserError: the recipe cannot be read.
    """
    whole = load_recipe(recipe_path)
    if whole.targets.apple_app is not None:
        raise PartsError(
            f"{recipe_path}: Apple's app needs both Core ML and MLX, and is in no part",
            hint="build the whole recipe, on a larger disk",
        )
    built = {name for name in _all_targets() if getattr(whole.targets, name) is not None}
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for part, targets in GROUPS.items():
        if built.isdisjoint(targets):
            continue
        lines = [
            f"# The part of {recipe_path.name} that makes {' and '.join(targets)}.",
            "",
            "schema: 1",
            f"name: {whole.name}-{part}",
            f"extend: {recipe_path.resolve()}",
            "targets:",
            *(f"  {name}: null" for name in sorted(built.difference(targets))),
        ]
        found[part] = folder / f"{whole.name}-{part}.yaml"
        found[part].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def _all_targets() -> Iterable[str]:
    return (target for targets in GROUPS.values() for target in targets)


def keep_stages(store: Store, stages: AbstractSet[str]) -> int:
    """Drop the entries of all other stages; the bytes that this freed.

    Args:
        store: of which the figures are read already.
        stages: names of those that parts to come have too.
    """
    gone = drop(store, lambda: tuple(e for e in inventory(store) if e.stage not in stages))
    return sum(entry.size_bytes for entry in gone)
