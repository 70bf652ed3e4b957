"""What is done to a tensor: the scheme that stores it and the method that chooses its codes."""

from dataclasses import dataclass
from typing import Literal

from fastvlm_compile.quantize.scheme import Quantized

Method = Literal["round_to_nearest", "search", "gptq", "clustering"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Scheme and method of one tensor."""

    scheme: Quantized
    method: Method


def uses_inputs(choice: Choice) -> bool:
    """Whether this choice makes it worth while to run the model on calibration inputs.

    `gptq` cannot do without; a palette has so few values that it gains much by knowing which
    inputs are strong. `search` takes what was gathered for others.
    """
    return choice.method in ("gptq", "clustering")
