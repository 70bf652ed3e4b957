"""The epsilons of a saved package's norms against the model's: read, not measured.

No golden shows a small epsilon that is ten times too large: behind the first layers of a decoder
rows have variances of 1 and more, so that 1e-6 in place of 1e-5 moves the logits by 2e-6 to 1e-5,
beside rounding of up to 1e-6 and a gate of 1e-5.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from validation.runtimes.ml_program.decode import read_program
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.program import Block, Immediate, Name, Operation

RELATIVE_TOLERANCE = 0.05
"""float16 keeps 1e-6 as 1.013e-6, its nearest subnormal number; half a step is 3 %."""


def norm_epsilon_problems(package: Path, expected: float) -> tuple[str, ...]:
    """Norms whose epsilon is not the model's, empty where all agree.

    Args:
        package: a `.mlpackage`; every `layer_norm` of every function is looked at.
        expected: the model's epsilon.

    Raises:
        PackageError, UnsupportedOp: the package cannot be read.
    """
    functions = read_program(open_package(package).spec).functions
    return tuple(
        f"{function}/{name}: epsilon is {epsilon:g}, the model's is {expected:g}"
        for function, content in functions.items()
        for name, epsilon in _epsilons(content.block)
        if not abs(epsilon - expected) <= RELATIVE_TOLERANCE * expected
    )


def _epsilons(block: Block) -> Iterator[tuple[str, float]]:
    """Output name and epsilon of each norm; NaN where the epsilon is no constant."""
    constants = {op.outputs[0].name: op for op in block.operations if op.kind == "const"}
    for op in block.operations:
        if op.kind == "layer_norm":
            yield op.outputs[0].name, _epsilon(op, constants)


def _epsilon(op: Operation, constants: dict[str, Operation]) -> float:
    (value,) = op.inputs.get("epsilon", (None,))
    if isinstance(value, Name):
        value = constants[value.name].attributes["val"] if value.name in constants else None
    if isinstance(value, Immediate) and value.data is not None:
        return float(np.asarray(value.data).reshape(-1)[0])
    return float("nan")
