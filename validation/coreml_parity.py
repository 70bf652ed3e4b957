"""A Core ML vision package: its contract everywhere, its numbers where something executes it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from validation.component_parity import compare_output
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.model_shape import ModelShape
from validation.progress import Progress, Steps
from validation.runtimes.base import Floats
from validation.runtimes.core_ml_vision import (
    IMAGE_FEATURES,
    IMAGES,
    CoreMLVision,
    PackageDescription,
    describe_package,
    why_not_runnable,
)
from validation.signature import Port, Signature, signature_problems
from validation.tally import Tally
from validation.tensor_parity import Comparison, Tolerance, Where

NUMERIC_METRICS = (
    "relative_l2",
    "max_abs",
    "cosine",
    "psnr_db",
    "smallest_atol",
    "smallest_rtol",
)


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


@dataclass(frozen=True, kw_only=True)
class NotRunnable:
    """Nothing executes packages here, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class CoreMLParity:
    """How a package is measured.

    Attributes:
        variant: the name under which the measurements are filed.
        tolerance: for the smallest passing tolerances.
    """

    variant: str
    tolerance: Tolerance


def core_ml(package: Path) -> VisionExecutor | NotRunnable:
    """Apple's Core ML where there is one."""
    reason = why_not_runnable()
    return NotRunnable(reason=reason) if reason else CoreMLVision(package)


def measure_coreml(
    config: CoreMLParity,
    *,
    goldens: Goldens,
    package: Path,
    progress: Progress,
    executor: Callable[[Path], VisionExecutor | NotRunnable] = core_ml,
) -> tuple[Measurement, ...]:
    """Checks the declared contract, then compares the vision features of every golden image.

    Args:
        config: names and tolerances.
        goldens: the reference's features before the projector.
        package: the `.mlpackage`.
        progress: told of every image.
        executor: finds what runs the package.

    Returns:
        The structural measurement and the metrics, these as not run where nothing executes.

    Raises:
        PackageUnreadableError: the package is missing or damaged.
        GoldenError: the goldens are damaged.
    """
    problems = package_problems(describe_package(package), goldens.shape)
    runner = executor(package)
    steps = Steps(progress, len(goldens.index.image_ids))
    if isinstance(runner, NotRunnable):
        tally = Tally(target="coreml", variant=config.variant, component="vision", executor="")
        tally.structure(problems, case="package")
        steps.end()
        return (*tally.measurements(), *tally.not_run(NUMERIC_METRICS, runner.reason))
    tally = Tally(
        target="coreml",
        variant=config.variant,
        component="vision",
        executor=runner.executor,
        executed_by_core_ml=runner.executed_by_core_ml,
    )
    tally.structure(problems, case="package")
    comparison = Comparison(goldens=goldens, tolerance=config.tolerance, steps=steps)
    _compare_images(comparison, runner, tally)
    steps.end()
    return tally.measurements()


def _compare_images(comparison: Comparison, runner: VisionExecutor, tally: Tally) -> None:
    goldens = comparison.goldens
    for image_id in goldens.index.image_ids:
        comparison.steps.begin(f"vision package, {image_id}")
        compare_output(
            comparison,
            tally,
            Where(case=image_id),
            expected={IMAGE_FEATURES: goldens.vision_features(image_id)[None]},
            run=partial(runner.vision_features, goldens.pixel_values(image_id)[None]),
        )


def package_problems(description: PackageDescription, shape: ModelShape) -> tuple[str, ...]:
    """Where a package differs from what Apple's app loads: it traps on anything else.

    Source: apple/ml-fastvlm, `app/FastVLM/FastVLM.swift` and the class Xcode makes of the package.
    """
    problems = []
    if description.kind != "mlProgram":
        problems.append(f"expected an mlProgram, found {description.kind}")
    if description.functions != ("main",):
        names = ", ".join(description.functions) or "none"
        problems.append(f"expected one function, main, found {names}")
    return (*problems, *signature_problems(vision_signature(shape), description.signature))


def vision_signature(shape: ModelShape) -> Signature:
    """`images` float32 [1, 3, S, S] -> `image_features` float32 [1, T, C], all fixed."""
    side = shape.image_size
    features = (1, shape.num_image_tokens, shape.vision_channels)
    return Signature(
        inputs=(Port(name=IMAGES, dtype="float32", dims=(1, 3, side, side)),),
        outputs=(Port(name=IMAGE_FEATURES, dtype="float32", dims=features),),
    )
