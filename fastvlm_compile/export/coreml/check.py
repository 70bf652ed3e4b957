"""What a written vision package must pass before anyone uses it: read back, not remembered."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.check_functions import check_functions
from fastvlm_compile.export.coreml.contract import Precision, vision_features
from fastvlm_compile.export.coreml.functions import by_size
from fastvlm_compile.export.errors import ExportError
from reference.config import VisionConfig
from reference.fastvithd import LAYER_NORM_EPS
from validation.norm_epsilons import norm_epsilon_problems

if TYPE_CHECKING:
    from coremltools.proto.MIL_pb2 import Operation
    from coremltools.proto.Model_pb2 import Model

VISION_OPS = frozenset(
    {
        "add",
        "cast",
        "const",
        "conv",
        "gelu",
        "layer_norm",
        "linear",
        "mul",
        "reduce_mean",
        "relu",
        "reshape",
        "scaled_dot_product_attention",
        "sigmoid",
        "split",
        "squeeze",
        "transpose",
    }
)
"""All that FastViTHD lowers to.

What is missing matters most: a square, power, square root or division outside `layer_norm` means a
norm written out in float16, which overflows quietly above |x - mean| = 255.9.
"""


def check_package(
    package: Path,
    vision: VisionConfig,
    precision: Precision,
    *,
    further_sizes: tuple[int, ...] = (),
) -> None:
    """Input and output as Apple declares them, the ops, and the weights' type and finiteness.

    Args:
        package: the `.mlpackage`.
        vision: the tower, for images of the size that the function `main` takes.
        precision: of the stored weights.
        further_sizes: of the other functions.

    Raises:
        ExportError: one of them is otherwise; it is named.
    """
    spec = read_spec(package)
    sized = by_size(vision.image_size, further_sizes)
    contract = {
        name: vision_features(replace(vision, image_size=size)) for name, size in sized.items()
    }
    check_functions(package, spec, contract)
    unexpected = op_counts(spec).keys() - VISION_OPS
    if unexpected:
        raise ExportError(f"{package.name}: unexpected ops {sorted(unexpected)}")
    _check_weights(package, spec, precision)
    check_norm_epsilons(package, LAYER_NORM_EPS)


def check_norm_epsilons(package: Path, expected: float) -> None:
    """Every norm of the written package divides by what the model divides by.

    Raises:
        ExportError: one has another epsilon, which no golden would show.
    """
    for problem in norm_epsilon_problems(package, expected):
        raise ExportError(f"{package.name}: {problem}")


def op_counts(spec: "Model") -> Counter[str]:
    """How often each op type occurs in the program."""
    return Counter(operation.type for operation in operations(spec))


def operations(spec: "Model") -> Iterator["Operation"]:
    """All operations of all functions of an ML Program."""
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from block.operations


def _check_weights(package: Path, spec: "Model", precision: Precision) -> None:
    """Every stored weight is of the precision asked for, and finite in it.

    coremltools keeps a layer in float32 without a word when a weight is past 65504, and such a
    layer leaves the Neural Engine; folding BatchNorm may push one there.
    """
    weights = spec_path(package).parent / "weights" / "weight.bin"
    for operation in operations(spec):
        value = operation.attributes.get("val")
        if value is None or not value.HasField("blobFileValue"):
            continue
        name = operation.outputs[0].name
        values = read_float_blob(weights, value.blobFileValue.offset)
        if values.dtype != np.dtype(precision):
            raise ExportError(f"{package.name}: weight {name} is stored in {values.dtype}")
        if not np.isfinite(values).all():
            raise ExportError(f"{package.name}: weight {name} is not finite in {values.dtype}")
