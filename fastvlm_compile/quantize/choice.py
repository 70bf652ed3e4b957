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
