"""Which op definition applies, and whether an operation fits it."""

import re

from validation.runtimes.ml_program.constants import Opaque
from validation.runtimes.ml_program.op import OpDef, Param, Table
from validation.runtimes.ml_program.types import DType, TensorType
from validation.runtimes.ml_program.view import Local, OpView, Unsupported

# "CoreML5" is iOS 15, "CoreML8" iOS 18; "CoreML9" (iOS 26) adds no ops over it.
KNOWN_OPSETS = range(5, 10)


def opset_number(name: str) -> int:
    """The number of an opset.

    Raises:
        Unsupported: the opset is not one this executor knows.
    """
    found = re.fullmatch(r"CoreML(\d+)", name)
    if found is None or int(found[1]) not in KNOWN_OPSETS:
        raise Unsupported(
            f"opset '{name}' is none of CoreML{KNOWN_OPSETS[0]} .. CoreML{KNOWN_OPSETS[-1]}"
        )
    return int(found[1])


def definition(table: Table, view: OpView) -> OpDef:
    """The newest version of the op that its opset has.

    Raises:
        Unsupported: there is none.
    """
    versions = table.get(view.kind)
    if versions is None:
        raise Unsupported("the op is not implemented")
    usable = [version for version in versions if version.since <= view.opset]
    if not usable:
        raise Unsupported(f"the op comes with opset CoreML{versions[0].since}")
    return usable[-1]


def check(found: OpDef, view: OpView) -> None:
    """Check an operation's parameters and result types against the definition.

    Raises:
        Unsupported: the first thing that does not fit.
    """
    known = {param.name: param for param in found.params}
    for name in view.bound:
        if name not in known:
            raise Unsupported(f"parameter '{name}' is not implemented")
    for param in found.params:
        if view.bound.get(param.name):
            _check_param(param, view)
        elif not param.optional:
            raise Unsupported(f"parameter '{param.name}' is missing")
    if found.result is not None:
        wanted = found.result if isinstance(found.result, DType) else view.dtype(found.result)
        if view.output().dtype is not wanted:
            raise Unsupported(
                f"its result is declared {view.output().dtype.value}, not {wanted.value}"
            )


def _check_param(param: Param, view: OpView) -> None:
    bound = view.bound[param.name]
    if len(bound) != 1 and not param.many:
        raise Unsupported(f"parameter '{param.name}' has {len(bound)} values")
    for each in bound:
        if isinstance(each, Opaque) or not isinstance(each.type, TensorType):
            kind = each.value.kind if isinstance(each, Opaque) else str(each.type)
            raise Unsupported(f"parameter '{param.name}' is a {kind}")
        if each.type.dtype not in param.dtypes:
            raise Unsupported(f"parameter '{param.name}' has type {each.type.dtype.value}")
        if param.attribute and isinstance(each, Local):
            raise Unsupported(f"parameter '{param.name}' is not constant")
