"""The recipe's key `device`: which of its variants are left, and why."""

import dataclasses

from fastvlm_compile.devices import DEVICES, DeviceVariant
from fastvlm_compile.errors import RecipeError
from fastvlm_compile.recipe import Recipe, Targets
from fastvlm_compile.recipe_narrow import narrow


def for_device(recipe: Recipe) -> Recipe:
    """The recipe with what its device is sent of its targets, which keep the last word: what
    they do not name is not built. Without a device the recipe as it is.

    Raises:
        RecipeError: nothing is left.
    """
    if recipe.device is None:
        return recipe
    device = DEVICES[recipe.device]
    chosen = {(each.target, each.variant) for each in device.variants}
    left = narrow(recipe, chosen)
    app = left.targets.apple_app if device.apple_app else None
    torch = left.targets.torch if device.torch else None
    targets = dataclasses.replace(left.targets, apple_app=app, torch=torch)
    if targets == Targets():
        sent = ", ".join(f"{each.target} {each.variant}" for each in device.variants)
        raise RecipeError(
            f"recipe {recipe.name}: its targets build nothing that the device {recipe.device} "
            "is sent",
            hint=f"it is sent {sent}",
        )
    return dataclasses.replace(left, targets=targets)


def chosen_for_device(recipe: Recipe) -> tuple[DeviceVariant, ...]:
    """What the device of a loaded recipe is sent of it, with the reasons; nothing without one."""
    if recipe.device is None:
        return ()
    built = recipe.targets.variants()
    return tuple(
        each
        for each in DEVICES[recipe.device].variants
        if each.variant in built.get(each.target, ())
    )
