"""Values of a made-up checkpoint's tensors: (seed, canonical name) decides each, in any layout."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fastvlm_compile.checkpoint.draws import Floats
from fastvlm_compile.checkpoint.language_statistics import LanguageStatistics
from fastvlm_compile.checkpoint.vision_statistics import Calibration, VisionStatistics
from reference.checkpoint.names import VISION_PREFIX
from reference.config import FastVLMConfig

_NUM_BATCHES_TRACKED = 10_000
"""BatchNorm's step counter; inference does not read it."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Draws the tensors of one made-up checkpoint."""

    config: FastVLMConfig
    seed: int
    calibration: Calibration
    """Of the vision tower of this seed, from `calibrate`."""

    def encoded_blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[memoryview]:
        """Values of a tensor as a safetensors file holds them: float16, or int64 for counters."""
        if is_counter(name):
            yield _bytes_of(np.array([_NUM_BATCHES_TRACKED], dtype="<i8"))
            return
        for block in self.blocks(name, shape):
            yield _bytes_of(block.astype("<f2"))

    def blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[Floats]:
        """Values of a floating-point tensor in row-major order, as float32 blocks."""
        if name.startswith(VISION_PREFIX):
            return self._vision.blocks(name.removeprefix(VISION_PREFIX), shape)
        return self._language.blocks(name, shape)

    @cached_property
    def _vision(self) -> VisionStatistics:
        return VisionStatistics(seed=self.seed, calibration=self.calibration)

    @cached_property
    def _language(self) -> LanguageStatistics:
        return LanguageStatistics(config=self.config, seed=self.seed)


def is_counter(name: str) -> bool:
    """BatchNorm's step counters are the only tensors that are not floating-point."""
    return name.endswith(".num_batches_tracked")


def _bytes_of(array: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
