"""Under which licence a bundle's weights stand: what its card must say.

Source of the notice: Apple's `LICENSE_MODEL`, which asks for it word for word, for the agreement
itself and for a word on what was changed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastvlm_compile.bundle.manifest import Manifest
    from fastvlm_compile.recipe import Recipe

APPLE = "apple-amlr"
"""The hub's name for Apple's licence of research models."""
RANDOM = "random-weights"
TINY = "fastvlm-compile-tiny"

_NOTICES = {
    APPLE: """\
> Apple Machine Learning Research Model is licensed under the \
Apple Machine Learning Research Model License Agreement.

It allows use for research purposes only, not in products. Its text is
[LICENSE_MODEL](https://github.com/apple/ml-fastvlm/blob/main/LICENSE_MODEL) and must go along with
these files. They are derivatives: converted to other formats, and quantized where the table above
has fewer bits.""",
    RANDOM: "The weights are random numbers in the shapes of a released model; nobody owns them.",
    TINY: """\
The weights are fastvlm-compile's own: trained by it on scenes that it renders, from nothing. No
weight of Apple's is in them; they stand under the licence of fastvlm-compile.""",
}


def weights_licence(recipe: "Recipe", *, synthetic: bool, replaced: bool) -> str:
    """The licence's identifier: what the recipe says of its own weights, else Apple's.

    Args:
        recipe: names weights, and may name their licence.
        synthetic: whether the weights are random.
        replaced: whether they are others than the recipe names. What it says is not true of those,
            and a fine-tune of a released model stands under Apple's licence too.
    """
    if synthetic:
        return RANDOM
    return APPLE if replaced or recipe.license is None else recipe.license


def has_random_weights(manifest: "Manifest") -> bool:
    """Whether a bundle's weights were never trained."""
    return manifest.provenance.license == RANDOM


def licence_front_matter(licence: str) -> str:
    """Lines of the card's front matter; names that the hub does not know are `other` there."""
    if licence in (RANDOM, TINY):
        return f"license: other\nlicense_name: {licence}\n"
    return f"license: {licence}\n"


def licence_notice(licence: str) -> str:
    """What is to be said of the weights, as Markdown."""
    return _NOTICES.get(licence, f"The weights stand under the licence `{licence}`.")
