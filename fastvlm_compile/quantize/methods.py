"""From a choice to codes: which function quantizes a tensor, and what it must know of inputs."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.hessians import InputMoments
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Palette, Shape, check_scheme, describe
from fastvlm_compile.quantize.tensor import Floats, QuantizedTensor
from reference.errors import UserError

Need = Literal["nothing", "diagonal", "full"]
"""What of the second moments of its inputs a method uses."""

_OBSERVED: frozenset[Role] = frozenset({"language", "head", "projector"})

_NEEDS: Mapping[str, Need] = {
    "round_to_nearest": "nothing",
    "search": "diagonal",
    "clustering": "diagonal",
    "gptq": "full",
}
_ROWS_AT_ONCE = 256


class ChoiceError(UserError):
    """A tensor cannot be quantized as chosen."""


def need_of(choice: Choice) -> Need:
    """What the chosen method uses where it can be had."""
    return _NEEDS[choice.method]


def is_observed(name: str, shape: Shape, *, tied: bool) -> bool:
    """Whether calibration sees a tensor's inputs. An embedding that is the head has the head's."""
    role = role_of(name, shape)
    return role in _OBSERVED or (tied and role == "embedding")


def check_choice(name: str, shape: Shape, choice: Choice) -> None:
    """Refuse what no method can do.

    Raises:
        ChoiceError: the method makes no codes of the scheme, or needs inputs that are not seen.
        SchemeError: the scheme cannot hold the tensor.
    """
    check_scheme(choice.scheme, shape)
    if (choice.method == "clustering") != isinstance(choice.scheme, Palette):
        raise ChoiceError(
            f"{name}: the method {choice.method} does not make {describe(choice.scheme)}",
            hint="clustering makes palettes, the other methods make affine integers",
        )
    role = role_of(name, shape)
    if choice.method == "gptq" and role not in _OBSERVED:
        raise ChoiceError(
            f"{name}: gptq needs the inputs of a tensor, which are not gathered for {role}",
            hint="choose the method search",
        )


def quantize_tensor(
    weight: Floats, choice: Choice, moments: InputMoments | None
) -> QuantizedTensor:
    """Quantize one tensor.

    Args:
        weight: float32 [O, I, ...].
        choice: checked by `check_choice`.
        moments: of its inputs [I], at least those that the method must have.

    Raises:
        UserError: the method refuses the values, see there.
    """
    scheme = choice.scheme
    importance = None if moments is None else moments.importance()
    if isinstance(scheme, Palette):
        from fastvlm_compile.quantize.palettize import palettize

        return palettize(weight, scheme, importance)
    from fastvlm_compile.quantize.affine import round_to_nearest, search
    from fastvlm_compile.quantize.gptq import gptq

    if choice.method == "round_to_nearest":
        return round_to_nearest(weight, scheme)
    if choice.method == "search":
        return search(weight, scheme, importance)
    assert choice.method == "gptq"
    assert moments is not None, "gptq without second moments"
    return gptq(weight, scheme, moments.second_moments())


def relative_error(weight: Floats, tensor: QuantizedTensor) -> float:
    """|weight - dequantized| / |weight|, Frobenius norms; 0 for a zero weight."""
    error = total = 0.0
    for start in range(0, len(weight), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        difference = tensor.rows(rows).dequantize()
        difference -= weight[rows]
        error += float(np.square(difference).sum(dtype=np.float64))
        total += float(np.square(weight[rows]).sum(dtype=np.float64))
    return float(np.sqrt(error / total)) if total > 0 else 0.0
