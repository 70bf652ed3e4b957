"""What an op implementation consists of.

`bind` is called once per operation before anything runs: it reads the constant attributes, refuses
what it does not implement by raising `Unsupported`, and returns the kernel that runs at each call.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView

FLOAT = frozenset((DType.FP16, DType.FP32))
INT32 = frozenset((DType.INT32,))
INTEGER = frozenset((DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, DType.INT32))
NUMBER = FLOAT | INT32
BOOL = frozenset((DType.BOOL,))
ANY = FLOAT | INTEGER | BOOL


Kernel = Callable[[Values], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter of an op.

    Attributes:
        dtypes: element types it may have.
        optional: whether it may be left out.
        attribute: must be constant, and is read by `bind` only.
        many: takes any number of tensors.
    """

    name: str
    dtypes: Collection[DType] = ANY
    optional: bool = False
    attribute: bool = False
    many: bool = False


def tensor(name: str, dtypes: Collection[DType] = ANY) -> Param:
    """A required tensor."""
    return Param(name=name, dtypes=dtypes)


def tensors(name: str, dtypes: Collection[DType] = ANY) -> Param:
    """A required list of tensors."""
    return Param(name=name, dtypes=dtypes, many=True)


def maybe(name: str, dtypes: Collection[DType] = ANY) -> Param:
    """An optional tensor."""
    return Param(name=name, dtypes=dtypes, optional=True)


_ATTRIBUTES = ANY | frozenset((DType.STRING, DType.UINT32))


def required(name: str) -> Param:
    """A constant that must be given."""
    return Param(name=name, dtypes=_ATTRIBUTES, attribute=True)


def setting(name: str) -> Param:
    """A constant that may be left out."""
    return Param(name=name, dtypes=_ATTRIBUTES, attribute=True, optional=True)


@dataclass(frozen=True, kw_only=True)
class OpDef:
    """One version of an op.

    Attributes:
        since: first opset in which it reads so: 5 = iOS 15, 6 = iOS 16, 7 = iOS 17, 8 = iOS 18.
        params: all parameters it knows; any other is an error.
        bind: see the module.
        result: whose element type the first result has: a parameter's name, a fixed type, or
            None where `bind` checks it.
        exact: results are copies of, or chosen among, the inputs' elements, so that fp16 inputs
            give fp16 results without rounding.
        aliases: parameters whose memory the results may share.
    """

    kind: str
    params: Sequence[Param]
    bind: Callable[[OpView], Kernel]
    since: int = 5
    result: str | DType | None = "x"
    exact: bool = False
    aliases: Sequence[str] = ()


def moves(
    kind: str,
    params: Sequence[Param],
    bind: Callable[[OpView], Kernel],
    *,
    since: int = 5,
    result: str | DType | None = "x",
) -> OpDef:
    """An op that only moves elements, those of its first parameter."""
    return OpDef(
        kind=kind,
        params=params,
        bind=bind,
        since=since,
        result=result,
        exact=True,
        aliases=(params[0].name,),
    )


Table = Mapping[str, tuple[OpDef, ...]]


def table(definitions: Sequence[OpDef]) -> dict[str, tuple[OpDef, ...]]:
    """Definitions by op type, oldest first."""
    found: dict[str, tuple[OpDef, ...]] = {}
    for definition in sorted(definitions, key=lambda each: each.since):
        found[definition.kind] = (*found.get(definition.kind, ()), definition)
    return found
