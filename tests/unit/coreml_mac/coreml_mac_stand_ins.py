"""Factories for the process of a compute unit: honest ones over the ML Program executor, and ones
that fail in the ways that Core ML has been seen to fail. None of them is Core ML.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

from reference.errors import UserError
from validation.runtimes.base import Floats
from validation.runtimes.compute_plan import FunctionPlan
from validation.runtimes.coreml_unit_child import Unit
from validation.runtimes.coreml_unit_messages import Opening
from validation.runtimes.coreml_unit_open import tower_unit, whole_model, whole_unit


def _no_plans() -> tuple[FunctionPlan, ...]:
    raise UserError("there is no compute plan without Core ML")


def executor(opening: Opening) -> Unit:
    """Runs the packages it is given."""
    from validation.runtimes.ml_program.executable import load  # PyTorch, which others do without
    from validation.runtimes.ml_program.state import State
    from validation.runtimes.ml_program_runtime import MLProgramRuntime

    whole = whole_model(opening)
    if whole is None:
        package = load(Path(opening.vision))
        return tower_unit("stand-in", lambda: package.run, _no_plans)
    runtime = MLProgramRuntime(whole)
    return whole_unit("stand-in", runtime, State.read, _no_plans)


def forgetful(opening: Opening) -> Unit:
    """Its decoder's state reads as zeros."""
    from validation.runtimes.ml_program_runtime import MLProgramRuntime

    whole = whole_model(opening)
    assert whole is not None
    runtime = MLProgramRuntime(whole)
    return whole_unit(
        "stand-in", runtime, lambda state, name: np.zeros_like(state.read(name)), _no_plans
    )


def _tower(vision: Callable[[Floats], object]) -> Unit:
    unit = tower_unit("stand-in", lambda: lambda inputs: {}, _no_plans)

    def vision_features(pixel_values: Floats) -> Floats:
        vision(pixel_values)
        return np.full((1, 4, 256), pixel_values[0, 0, 0, 0], dtype=np.float32)

    return dataclasses.replace(unit, vision_features=vision_features)


def _abort() -> NoReturn:
    os.abort()


def aborts_on_gpu(opening: Opening) -> Unit:
    """As coremltools was seen to: the GPU takes the process along, other units do not."""
    gpu = opening.compute_units in ("cpu_and_gpu", "all")
    return _tower(lambda _: _abort() if gpu else None)


def aborts_while_opened(opening: Opening) -> Unit:
    _abort()


def aborts_in_the_plan(opening: Opening) -> Unit:
    return dataclasses.replace(_tower(lambda _: None), compute_plans=_abort)


def leaves(opening: Opening) -> Unit:
    return _tower(lambda _: os._exit(7))


def hangs(opening: Opening) -> Unit:
    return _tower(lambda _: time.sleep(600))


def killed(opening: Opening) -> Unit:
    return _tower(lambda _: os.kill(os.getpid(), signal.SIGKILL))


def fails(opening: Opening) -> Unit:
    def fail(_: Floats) -> None:
        print("talk on stdout, as libraries do", flush=True)
        raise RuntimeError("Error computing NN outputs.")

    return _tower(fail)


def writes_nonsense(opening: Opening) -> Unit:
    """Something in the process writes where only answers belong."""

    def write(_: Floats) -> None:
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"nonsense\n")
            except OSError:
                continue

    return _tower(write)


def tells_its_units(opening: Opening) -> Unit:
    """Tells the compute units it was given."""
    return dataclasses.replace(_tower(lambda _: None), executor=f"on {opening.compute_units}")


def aborts_in_the_decoder(opening: Opening) -> Unit:
    """The GPU runs the tower and dies of the decoder; other units run everything."""
    if opening.compute_units != "cpu_and_gpu":
        return executor(opening)
    return dataclasses.replace(executor(opening), logits_after=lambda _: _abort())
