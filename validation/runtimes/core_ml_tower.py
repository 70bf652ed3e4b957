"""The vision tower alone in Apple's Core ML, where no other part of the model was built."""

from pathlib import Path

import numpy as np

from validation.runtimes.base import Floats
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES, quiet
from validation.runtimes.sized_program import PlainProgram, SizedProgram


class CoreMLVision:
    """Runs the package through Apple's Core ML. Only on macOS.

    Args:
        package: the `.mlpackage`.
    """

    executed_by_core_ml = True

    def __init__(self, package: Path) -> None:
        with quiet():
            import coremltools

            self._version = coremltools.__version__
        self._package = package
        self._program = SizedProgram(package, self._open)

    @property
    def executor(self) -> str:
        """`Core ML (coremltools 9.0, all compute units)`."""
        return f"Core ML (coremltools {self._version}, all compute units)"

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[1, 3, S, S] in 0..1 -> [1, T, C], before the projector."""
        return np.asarray(self._program({IMAGES: pixel_values})[IMAGE_FEATURES])

    def _open(self, function: str | None) -> PlainProgram:
        with quiet():
            import coremltools

            model = coremltools.models.MLModel(str(self._package), function_name=function)
        return lambda inputs: dict(model.predict(dict(inputs)))
