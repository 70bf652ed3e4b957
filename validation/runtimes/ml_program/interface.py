"""Between the outside (numpy arrays, images) and a function's own tensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from validation.runtimes.ml_program.bits import NUMPY
from validation.runtimes.ml_program.errors import InputError, PackageError
from validation.runtimes.ml_program.features import Feature, FixedShape, ImageFormat, describe
from validation.runtimes.ml_program.plan import FunctionPlan
from validation.runtimes.ml_program.program import Function
from validation.runtimes.ml_program.tensors import STORAGE, from_numpy, to_numpy
from validation.runtimes.ml_program.types import TensorType


def check_interface(function: Function, plan: FunctionPlan, package: Path) -> None:
    """Check that the package's description and its program speak of the same values.

    Raises:
        PackageError: a name or element type differs.
    """
    for what, features, types in (
        ("inputs", function.inputs, plan.parameters),
        ("states", function.states, plan.states),
        ("outputs", function.outputs, plan.outputs),
    ):
        described = {feature.name for feature in features}
        if described != set(types):
            raise PackageError(
                f"{package}: function '{function.name}' has the {what} {sorted(types)},"
                f" its description {sorted(described)}"
            )
        for feature in features:
            declared = types[feature.name]
            if feature.image is None and feature.dtype is not declared.dtype:
                raise PackageError(
                    f"{package}: '{feature.name}' is {declared.dtype.value} in the program"
                    f" and {feature.dtype.value} in its description"
                )


def to_tensors(
    inputs: Mapping[str, np.ndarray], function: Function, plan: FunctionPlan
) -> dict[str, Tensor]:
    """A function's arguments from arrays.

    Args:
        inputs: arrays of exactly the declared names, shapes and element types; an image is uint8
            [height, width, 3] in RGB order, or [height, width] if it is gray.

    Raises:
        InputError: they are not what the package declares; all declared inputs are listed.
    """
    features = {feature.name: feature for feature in function.inputs}
    for name in inputs:
        if name not in features:
            raise _refusal(f"there is no input '{name}'", function)
    found = {}
    for name, feature in features.items():
        declared = plan.parameters[name]
        if name in inputs:
            found[name] = _tensor(np.asarray(inputs[name]), feature, declared, function)
        elif feature.optional and feature.shape is not None:
            shape = feature.shape.shape
            found[name] = torch.full(shape, feature.default).to(STORAGE[declared.dtype])
        else:
            raise _refusal(f"input '{name}' is missing", function)
    return found


def to_array(
    tensor: Tensor, declared: TensorType, image: ImageFormat | None, *, rounded: bool
) -> np.ndarray:
    """A result for the outside: uint8 RGB or gray for images, else the declared element type.

    Where the run did not round, fp16 results come as float32.
    """
    if image is None:
        return to_numpy(tensor, declared.dtype, rounded=rounded)
    planes = tensor[0].round().clamp(0, 255).to(torch.uint8).numpy()
    if image.channels == 1:
        return np.array(planes[0])
    rgb = planes[::-1] if image.color == "BGR" else planes
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def drawn(function: Function, *, seed: int) -> dict[str, np.ndarray]:
    """Arrays that fit a function's inputs in their default shapes, for trying a package out.

    Floats are standard normal, images uniform, integers zero (they may be positions or indices).
    """
    random = np.random.default_rng(seed)
    found = {}
    for feature in function.inputs:
        shape = feature.shape.shape if feature.shape is not None else ()
        if feature.image is not None:
            size = shape[2:] if feature.image.channels == 1 else (*shape[2:], 3)
            found[feature.name] = random.integers(0, 256, size, dtype=np.uint8)
        elif feature.dtype.is_float:
            values = random.standard_normal(shape, dtype=np.float32)
            found[feature.name] = values.astype(NUMPY[feature.dtype])
        else:
            found[feature.name] = np.zeros(shape, dtype=NUMPY[feature.dtype])
    return found


def _tensor(
    array: np.ndarray, feature: Feature, declared: TensorType, function: Function
) -> Tensor:
    if feature.image is not None:
        array = _planes(array, feature.name, feature.image, function)
    elif array.dtype != np.dtype(NUMPY[feature.dtype]):
        raise _refusal(
            f"input '{feature.name}' is {array.dtype}, not {NUMPY[feature.dtype].strip('<')}"
            f" ({feature.dtype.value})",
            function,
        )
    if feature.shape is not None and not feature.shape.admits(array.shape):
        raise _refusal(
            f"input '{feature.name}' has shape {list(array.shape)}, allowed is {feature.shape}",
            function,
        )
    if declared.shape == () and feature.shape == FixedShape(shape=(1,)):
        array = array.reshape(())
    if not declared.admits(array.shape):
        raise _refusal(
            f"input '{feature.name}' has shape {list(array.shape)}, the program takes {declared}",
            function,
        )
    return from_numpy(np.array(array), declared.dtype)


def _planes(array: np.ndarray, name: str, image: ImageFormat, function: Function) -> np.ndarray:
    wanted = 2 if image.channels == 1 else 3
    if array.dtype != np.uint8 or array.ndim != wanted or (wanted == 3 and array.shape[2] != 3):
        raise _refusal(
            f"image '{name}' is {array.dtype} {list(array.shape)}, not uint8"
            f" {'[height, width]' if wanted == 2 else '[height, width, 3]'}",
            function,
        )
    planes = array[None] if wanted == 2 else array.transpose(2, 0, 1)
    if image.color == "BGR":
        planes = planes[::-1]
    return planes[None].astype(np.float32)


def _refusal(message: str, function: Function) -> InputError:
    listed = "; ".join(describe(feature) for feature in function.inputs) or "none"
    return InputError(f"function '{function.name}': {message}", hint=f"inputs are: {listed}")
