"""Goldens with another reference's outputs: the same inputs, answered by a quantized model.

What a runtime returns is compared twice: with the goldens (the whole error) and with these (the
error that is left when that of the quantization is taken away).
"""

from collections.abc import Mapping

import numpy as np

from validation.goldens import Goldens, unusable


def projected(image_id: str) -> str:
    """Name of the array [T, H] that a projector makes of the goldens' own vision features."""
    return f"images/{image_id}/projected"


class SubstitutedGoldens(Goldens):
    """Goldens in which some arrays stand for others of the same name, shape and dtype.

    Args:
        goldens: where the inputs, and all else, come from.
        outputs: what replaces arrays of the goldens, and `projected(image_id)`.

    Raises:
        GoldenError: an output is not of the shape and dtype of what it replaces.
    """

    def __init__(self, goldens: Goldens, outputs: Mapping[str, np.ndarray]) -> None:
        super().__init__(goldens.directory, goldens.index)
        for name, array in outputs.items():
            info = goldens.index.arrays.get(name)
            if info is not None and (array.shape, str(array.dtype)) != (info.shape, info.dtype):
                raise unusable(
                    f"{name}: {array.dtype} {list(array.shape)} cannot stand for the goldens' "
                    f"{info.dtype} {list(info.shape)}"
                )
        self._outputs = outputs

    def array(self, name: str) -> np.ndarray:
        """The replaced array, or the goldens'."""
        return self._outputs[name] if name in self._outputs else super().array(name)
