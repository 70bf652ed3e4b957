"""Constants of a program, found before anything runs."""

from collections.abc import Mapping

from validation.runtimes.ml_program.constants import (
    COMPRESSIONS,
    Compression,
    Constant,
    Derived,
    Opaque,
    Stored,
)
from validation.runtimes.ml_program.program import BlobValue, OpaqueValue, Operation, Value
from validation.runtimes.ml_program.types import TensorType
from validation.runtimes.ml_program.view import Bound, Unsupported
from validation.runtimes.ml_program.weights import Weights


def stored(value: Value, weights: Weights) -> Stored | Opaque:
    """A constant as it stands in the package; what lies in a weight file is checked at once.

    Raises:
        PackageError: the weight file does not hold it.
    """
    if isinstance(value, OpaqueValue):
        return Opaque(value=value)
    if isinstance(value, BlobValue):
        weights.check(value)
    return Stored(value=value)


def const(operation: Operation, weights: Weights) -> Stored | Opaque:
    """The value of a `const` op.

    Raises:
        Unsupported: it has none.
        PackageError: the weight file does not hold it.
    """
    if "val" not in operation.attributes:
        raise Unsupported("it has no value")
    return stored(operation.attributes["val"], weights)


def constexpr(
    operation: Operation, given: Mapping[str, tuple[Bound, ...]], opset: int
) -> tuple[Derived, ...]:
    """The results of a `constexpr_*` op.

    Args:
        given: its parameters, whether they stand among its inputs or its attributes.

    Raises:
        Unsupported: the op, a parameter or a type is not implemented.
    """
    compression = _compression(operation.kind, opset)
    args = _arguments(compression, given)
    results = []
    for index, output in enumerate(operation.outputs):
        if not isinstance(output.type, TensorType):
            raise Unsupported(f"result '{output.name}' is a {output.type}")
        results.append(Derived(compression=compression, args=args, index=index, type=output.type))
    return tuple(results)


def _compression(kind: str, opset: int) -> Compression:
    versions = COMPRESSIONS.get(kind, ())
    usable = [version for version in versions if version.since <= opset]
    if not versions:
        raise Unsupported("the op is not implemented")
    if not usable:
        raise Unsupported(f"the op comes with opset CoreML{versions[0].since}")
    return usable[-1]


def _arguments(
    compression: Compression, given: Mapping[str, tuple[Bound, ...]]
) -> dict[str, Constant]:
    known = {**compression.required, **compression.optional}
    args: dict[str, Constant] = {}
    for name, bound in given.items():
        if name not in known:
            raise Unsupported(f"parameter '{name}' is not implemented")
        if len(bound) != 1 or not isinstance(bound[0], Stored | Derived):
            raise Unsupported(f"parameter '{name}' is not one constant")
        if bound[0].type.dtype not in known[name]:
            raise Unsupported(f"parameter '{name}' has type {bound[0].type.dtype.value}")
        args[name] = bound[0]
    for name in compression.required:
        if name not in args:
            raise Unsupported(f"parameter '{name}' is missing")
    return args
