"""What is known to keep a program, or a part of it, off the Neural Engine.

Reported experience of people who ship such models, not documentation; only a Mac or a device
tells for sure (its compute plan).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from validation.runtimes.ml_program.features import ShapeRanges
from validation.runtimes.ml_program.program import Function, Operation, Program
from validation.runtimes.ml_program.types import DType, TensorType

_MAX_SIZE = 16384
_MAX_WEIGHT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """One kind of obstacle in one function.

    Attributes:
        what: the rule that is broken.
        count: how often.
        example: where first.
    """

    function: str
    what: str
    count: int
    example: str


def find_obstacles(program: Program, *, weight_bytes: int) -> tuple[Obstacle, ...]:
    """All known obstacles of a program."""
    found: dict[tuple[str, str], list[str]] = {}
    if weight_bytes > _MAX_WEIGHT_BYTES:
        found[("", "weights above 1 GB in one package")] = [f"{weight_bytes / 1e9:.2f} GB"]
    for function in program.functions.values():
        for what, where in (*_of_interface(function), *_of_operations(function)):
            found.setdefault((function.name, what), []).append(where)
    return tuple(
        Obstacle(function=function, what=what, count=len(places), example=places[0])
        for (function, what), places in found.items()
    )


def _of_interface(function: Function) -> Iterator[tuple[str, str]]:
    for feature in function.inputs:
        if isinstance(feature.shape, ShapeRanges):
            yield "an input with a range of shapes, neither fixed nor enumerated", feature.name
    if len(function.states) > 2:
        yield "three or more states", ", ".join(state.name for state in function.states)
    for state in function.states:
        shape = state.shape.shape if state.shape is not None else ()
        if any(size % 32 for size in shape[-2:]):
            yield "a state whose last dimensions are not multiples of 32", state.name


def _of_operations(function: Function) -> Iterator[tuple[str, str]]:
    for operation in function.block.walk():
        if operation.kind == "constexpr_blockwise_shift_scale" and _is_per_block(operation):
            yield "weights quantized per block", operation.label
        if operation.kind == "const" or operation.kind.startswith("constexpr_"):
            continue
        for output in operation.outputs:
            if not isinstance(output.type, TensorType) or output.type.shape is None:
                continue
            if len(output.type.shape) >= 5:
                yield "values of rank 5 or more", output.name
            if any(size is not None and size > _MAX_SIZE for size in output.type.shape):
                yield f"a dimension above {_MAX_SIZE}", output.name
            if output.type.dtype is DType.FP32 and operation.kind != "cast":
                yield "ops in float32", output.name


def _is_per_block(operation: Operation) -> bool:
    """Whether a scale changes along more than one dimension of the data."""
    for binding in operation.inputs.get("scale", ()):
        declared = getattr(binding, "type", None)
        if isinstance(declared, TensorType) and declared.shape is not None:
            return sum(size not in (None, 1) for size in declared.shape) > 1
    return False
