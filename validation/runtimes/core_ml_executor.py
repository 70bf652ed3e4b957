"""What executes the Core ML form of a model here: Core ML itself, else the ML Program executor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from validation.runtimes.base import Floats, Runtime
from validation.runtimes.core_ml_paths import CoreMLPaths
from validation.runtimes.core_ml_tower import CoreMLVision
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES, why_not_runnable
from validation.runtimes.coreml_runtime import ComputeUnits, CoreMLRuntime, why_unavailable

if TYPE_CHECKING:
    from validation.runtimes.package_peaks import PackagePeaks
    from validation.runtimes.sized_program import SizedProgram

Precision = Literal["float16", "float32"]

WEIGHTS_BYTES = 2 * 2**30
"""Decompressed weights that our executor keeps: those of one package below the Neural Engine's
limit of 1 GB, in float32. Packages are run one after the other."""


class VisionExecutor(Protocol):
    """Something that runs a vision package."""

    @property
    def executor(self) -> str:
        """The program and version that computes."""
        ...

    @property
    def executed_by_core_ml(self) -> bool:
        """Whether it is Apple's Core ML."""
        ...

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[1, 3, S, S] in 0..1 -> [1, T, C], before the projector."""
        ...


class WholeModel(VisionExecutor, Runtime, Protocol):
    """All packages of a model."""

    def project(self, features: Floats) -> Floats:
        """[1, T, C] -> [1, T, H]."""
        ...

    def logits_after(self, pieces: Sequence[Floats]) -> Floats:
        """Rows taken in piece by piece, [L, H] each -> [pieces, V], after each last row."""
        ...


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What there is of a model.

    Attributes:
        vision: the tower's package.
        whole: all parts; None where the tower alone was built.
        precision: of the arithmetic of all of them.
        compressed: name of the variant with quantized weights; empty where none are.
    """

    vision: Path
    whole: CoreMLPaths | None
    precision: Precision
    compressed: str = ""

    @property
    def variant(self) -> str:
        """Under which they are measured."""
        return self.compressed or self.precision


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Packages with what executes them.

    Attributes:
        vision: runs the tower; the same object as `whole` where there is one.
        whole: runs everything.
        peaks: how far values inside reach; None where they cannot be seen.
    """

    vision: VisionExecutor
    whole: WholeModel | None
    peaks: "PackagePeaks | None" = None


@dataclass(frozen=True, kw_only=True)
class NotRunnable:
    """Nothing executes packages here, and why."""

    reason: str


def open_packages(
    packages: Packages, *, compute_units: ComputeUnits = "all"
) -> Opened | NotRunnable:
    """Core ML where it can run these packages, else our executor where PyTorch is installed.

    Args:
        packages: what to run.
        compute_units: of Core ML.

    Raises:
        UserError: a part is missing or damaged, or asks for an op that is not implemented.
    """
    whole = packages.whole
    reason = why_not_runnable() if whole is None else why_unavailable()
    if reason:
        return _ml_program(packages, why_not_core_ml=reason)
    if whole is None:
        return Opened(vision=CoreMLVision(packages.vision), whole=None)
    runtime = CoreMLRuntime(whole, compute_units=compute_units)
    return Opened(vision=runtime, whole=runtime)


def _ml_program(packages: Packages, *, why_not_core_ml: str) -> Opened | NotRunnable:
    try:
        from validation.runtimes.ml_program_runtime import MLProgramRuntime
        from validation.runtimes.package_peaks import PackagePeaks
    except ModuleNotFoundError as error:
        return NotRunnable(
            reason=f"{why_not_core_ml}; "
            f"the ML Program executor needs {error.name}, which is not installed"
        )
    # float32 numbers would hide what float16 loses; rounding of float32 packages changes nothing.
    rounding: Literal["fp16", "none"] = "fp16" if packages.precision == "float16" else "none"
    peaks = PackagePeaks() if packages.precision == "float16" else None
    if packages.whole is None:
        return Opened(vision=MLProgramVision(packages, peaks), whole=None, peaks=peaks)
    if peaks is None:
        runtime = MLProgramRuntime(packages.whole, rounding=rounding, cache_bytes=WEIGHTS_BYTES)
    else:
        runtime = MLProgramRuntime(
            packages.whole,
            rounding=rounding,
            cache_bytes=WEIGHTS_BYTES,
            watch_of=peaks.watch_of,
        )
    return Opened(vision=runtime, whole=runtime, peaks=peaks)


class MLProgramVision:
    """The tower alone in our executor.

    Raises:
        UserError: at the first run, for a package that is damaged or not implemented.
    """

    executed_by_core_ml = False

    def __init__(self, packages: Packages, peaks: "PackagePeaks | None") -> None:
        self._package = packages.vision
        self._rounding: Literal["fp16", "none"] = (
            "fp16" if packages.precision == "float16" else "none"
        )
        self._watch = None if peaks is None else peaks.watch_of(packages.vision)

    @cached_property
    def _program(self) -> "SizedProgram":
        from validation.runtimes.ml_program_runtime import executed_program

        return executed_program(self._package, rounding=self._rounding, watch=self._watch)

    @property
    def executor(self) -> str:
        """As that of the whole model."""
        from validation.runtimes.ml_program_runtime import executor_name

        return executor_name(self._rounding)

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[1, 3, S, S] in 0..1 -> [1, T, C], before the projector."""
        outputs = self._program({IMAGES: pixel_values})
        features: Floats = outputs[IMAGE_FEATURES].astype("float32", copy=False)
        return features
