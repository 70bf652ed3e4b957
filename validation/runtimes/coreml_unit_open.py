"""Opens packages in Core ML for the process of one compute unit. Only on macOS."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

import numpy as np

from reference.decoding import Session
from reference.errors import UserError
from validation.runtimes.base import Floats
from validation.runtimes.compute_plan import FunctionPlan, read_function_plans
from validation.runtimes.core_ml_paths import CoreMLPaths
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES
from validation.runtimes.coreml_runtime import (
    ComputeUnits,
    CoreMLOpener,
    CoreMLRuntime,
    core_ml_name,
)
from validation.runtimes.coreml_unit_child import Unit
from validation.runtimes.coreml_unit_messages import Opening
from validation.runtimes.coreml_unit_states import ReadState, read_caches
from validation.runtimes.packages_runtime import PackagesRuntime
from validation.runtimes.sized_program import PlainProgram

if TYPE_CHECKING:
    from coremltools.models.model import MLState

CORE_ML = "validation.runtimes.coreml_unit_open:core_ml"
"""The factory that a process is given."""

S = TypeVar("S")


def core_ml(opening: Opening) -> Unit:
    """The packages in Core ML; each is compiled when it is first needed.

    Raises:
        CoreMLUnavailableError: this is no Mac, or its system is too old.
        PackagesMissingError, LanguageLayoutError: a part is missing or damaged.
    """
    units = cast(ComputeUnits, opening.compute_units)
    whole = whole_model(opening)

    def plans() -> tuple[FunctionPlan, ...]:
        packages = [Path(opening.vision)]
        if whole is not None:
            from validation.runtimes.language_layout import read_layout

            chunks = read_layout(whole.language).chunks
            packages += [whole.projector, *(whole.language / chunk.package for chunk in chunks)]
        return tuple(
            plan
            for package in packages
            for plan in read_function_plans(package, compute_units=units)
        )

    if whole is None:
        opener = CoreMLOpener(units)
        return tower_unit(core_ml_name(units), lambda: opener.plain(Path(opening.vision)), plans)
    runtime = CoreMLRuntime(whole, compute_units=units)
    return whole_unit(runtime.executor, runtime, _read_state, plans)


def whole_model(opening: Opening) -> CoreMLPaths | None:
    """The parts that a process is given; None for the tower alone."""
    if not opening.language:
        return None
    return CoreMLPaths(
        vision=Path(opening.vision),
        projector=Path(opening.projector),
        embedding=Path(opening.embedding),
        language=Path(opening.language),
    )


def whole_unit(
    executor: str,
    runtime: PackagesRuntime[S],
    read_state: ReadState[S],
    compute_plans: Callable[[], tuple[FunctionPlan, ...]],
) -> Unit:
    """A whole model as a unit, whatever executes it."""
    return Unit(
        executor=executor,
        vision_features=runtime.vision_features,
        project=runtime.project,
        logits_after=runtime.logits_after,
        session=runtime.session,
        read_caches=lambda rows: read_caches(runtime.decoder, rows, read_state),
        compute_plans=compute_plans,
    )


def tower_unit(
    executor: str,
    open_tower: Callable[[], PlainProgram],
    compute_plans: Callable[[], tuple[FunctionPlan, ...]],
) -> Unit:
    """The vision tower alone as a unit."""
    opened: list[PlainProgram] = []

    def vision_features(pixel_values: Floats) -> Floats:
        if not opened:
            opened.append(open_tower())
        return np.asarray(opened[0]({IMAGES: pixel_values})[IMAGE_FEATURES], dtype=np.float32)

    def project(features: Floats) -> Floats:
        _refuse(features)

    def logits_after(pieces: Sequence[Floats]) -> Floats:
        _refuse(pieces)

    def session(inputs_embeds: Floats) -> Session:
        _refuse(inputs_embeds)

    def caches(rows: Floats) -> dict[str, np.ndarray]:
        _refuse(rows)

    return Unit(
        executor=executor,
        vision_features=vision_features,
        project=project,
        logits_after=logits_after,
        session=session,
        read_caches=caches,
        compute_plans=compute_plans,
    )


def _refuse(_: object) -> NoReturn:
    raise UserError("the vision tower alone was opened, there is no projector and no decoder")


def _read_state(state: "MLState | None", name: str) -> np.ndarray:
    if state is None:
        raise UserError(f"there is no state to read {name} from")
    return np.asarray(state.read_state(name))
