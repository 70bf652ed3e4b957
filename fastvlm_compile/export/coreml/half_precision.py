"""coremltools' cast to float16, without the copies that it makes to look for weights that overflow.

For every constant coremltools gathers the finite values by their indices: three 64-bit indices and
two copies a value, 4.5 GB for the output head of the 0.5B. Here the same is found block by block.

Import it where coremltools may be imported, inside `quiet_coremltools`.
"""

import numpy as np
import numpy.typing as npt
from coremltools import PassPipeline
from coremltools.converters.mil.mil import Operation, Var
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.passes.pass_registry import register_pass

from fastvlm_compile.export.coreml.contract import Precision

_REPLACED = "common::add_fp16_cast"
_NAMESPACE = "fastvlm"
_NAME = "add_fp16_cast"

_LARGEST = 65504.0
_FINITE = 1e38
"""From here on coremltools takes a value for an infinite one, which float16 has as well."""

_SMALL_VALUES = 400
"""Up to so many coremltools looks for values that become zero."""

_VALUES_AT_ONCE = 2**20


@register_pass(namespace=_NAMESPACE, name=_NAME)
class HalfPrecision(FP16ComputePrecision):  # type: ignore[misc]  # coremltools has no types
    """Casts the same ops to float16 as the pass that it replaces."""

    @staticmethod
    def fp16_overflow(op: Operation) -> bool:
        """Whether a constant input has a value that float16 does not reach."""
        for given in op.inputs.values():
            for var in given if isinstance(given, list | tuple) else (given,):
                if (
                    var.op is not None
                    and var.op.op_type == "const"
                    and var.is_tensor_or_scalar_of(dtype="fp32")
                    and _overflows(np.asarray(var.op.val.val))
                ):
                    return True
        return False

    def _check_underflow_to_zero(self, new_var: Var, var: Var) -> None:
        if np.size(var.val) < _SMALL_VALUES:
            super()._check_underflow_to_zero(new_var, var)


def with_lean_cast(pipeline: PassPipeline, precision: Precision) -> PassPipeline:
    """The pipeline with this cast in the place of coremltools', of which nothing shows in a file.

    Args:
        pipeline: changed and given back.
        precision: where it is float32 nothing is cast, and nothing changed.
    """
    if precision == "float32":
        return pipeline
    place = pipeline.passes.index(_REPLACED)
    pipeline.remove_passes({_REPLACED})
    pipeline.insert_pass(place, f"{_NAMESPACE}::{_NAME}")
    return pipeline


def _overflows(values: npt.NDArray[np.floating]) -> bool:
    flat = values.reshape(-1)
    for start in range(0, flat.size, _VALUES_AT_ONCE):
        magnitudes = np.abs(flat[start : start + _VALUES_AT_ONCE])
        finite = magnitudes < _FINITE
        if np.max(magnitudes, initial=0.0, where=finite) > _LARGEST:
            return True
    return False
