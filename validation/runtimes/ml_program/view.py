"""One operation as its implementation sees it before anything runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from validation.runtimes.ml_program.constants import Constant, Derived, Opaque, Stored, evaluate
from validation.runtimes.ml_program.program import Immediate
from validation.runtimes.ml_program.types import DType, TensorType, ValueType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.weights import Weights

T = TypeVar("T")


class Unsupported(Exception):  # noqa: N818 - a reason to collect, not an error to show
    """Why an operation cannot be executed; collected over the program before it is told."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """A value computed at run time."""

    name: str
    type: ValueType


Bound = Local | Stored | Derived | Opaque


class OpView:
    """An operation with its parameters resolved to constants and run-time values."""

    def __init__(
        self,
        *,
        kind: str,
        opset: int,
        bound: Mapping[str, Sequence[Bound]],
        outputs: Sequence[ValueType],
        weights: Weights,
    ) -> None:
        self.kind = kind
        self.opset = opset
        self.bound = bound
        self._outputs = outputs
        self._weights = weights

    def has(self, name: str) -> bool:
        """Whether a parameter is given."""
        return name in self.bound

    def type(self, name: str) -> TensorType:
        """Declared type of a parameter.

        Raises:
            Unsupported: it is no tensor.
        """
        bound = self.bound[name][0]
        if isinstance(bound, Opaque):
            raise Unsupported(f"parameter '{name}' is a {bound.value.kind}")
        if not isinstance(bound.type, TensorType):
            raise Unsupported(f"parameter '{name}' is a {bound.type}")
        return bound.type

    def dtype(self, name: str) -> DType:
        """Declared element type of a parameter."""
        return self.type(name).dtype

    def rank(self, name: str) -> int:
        """Declared rank of a parameter.

        Raises:
            Unsupported: the rank is not known before the run.
        """
        rank = self.type(name).rank
        if rank is None:
            raise Unsupported(f"the rank of parameter '{name}' is not declared")
        return rank

    def output(self, index: int = 0) -> TensorType:
        """Declared type of a result.

        Raises:
            Unsupported: there is no such tensor.
        """
        if index >= len(self._outputs):
            raise Unsupported(f"it declares {len(self._outputs)} results")
        found = self._outputs[index]
        if not isinstance(found, TensorType):
            raise Unsupported(f"result {index} is a {found}")
        return found

    @property
    def num_outputs(self) -> int:
        """How many results are declared."""
        return len(self._outputs)

    def constant(self, name: str) -> Constant | None:
        """A parameter's constant, None where it is computed at run time or not given."""
        bound = self.bound.get(name, (None,))[0]
        return bound if isinstance(bound, Stored | Derived) else None

    def array(self, name: str) -> np.ndarray | None:
        """Elements of a constant parameter."""
        constant = self.constant(name)
        return None if constant is None else evaluate(constant, self._weights)

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A constant vector of integers (a scalar counts as one)."""
        found = self.array(name)
        if found is None:
            return tuple(default)
        return tuple(int(item) for item in found.reshape(-1))

    def integer(self, name: str, default: int = 0) -> int:
        """A constant integer."""
        return _only(name, self.integers(name, (default,)))

    def running_integers(self, name: str) -> Callable[[Values], tuple[int, ...]]:
        """A vector of integers, read now if constant, else at each call."""
        if self.constant(name) is not None:
            fixed = self.integers(name)
            return lambda _: fixed
        return lambda values: tuple(int(item) for item in values[name].reshape(-1).tolist())

    def list_of_integers(self, name: str) -> tuple[int, ...]:
        """A parameter that takes several constant integers, such as `reshape_like.begins`."""
        found = []
        for bound in self.bound[name]:
            if not isinstance(bound, Stored | Derived):
                raise Unsupported(f"parameter '{name}' is not constant")
            found.append(int(evaluate(bound, self._weights).reshape(-1)[0]))
        return tuple(found)

    def flags(self, name: str, default: Sequence[bool]) -> tuple[bool, ...]:
        """A constant vector of booleans."""
        found = self.array(name)
        return tuple(default) if found is None else tuple(bool(item) for item in found.reshape(-1))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A constant boolean."""
        return _only(name, self.flags(name, (default,)))

    def number(self, name: str, default: float) -> float:
        """A constant number."""
        found = self.array(name)
        if found is None:
            return default
        return _only(name, tuple(float(item) for item in found.reshape(-1)))

    def string(self, name: str) -> str:
        """A constant string.

        Raises:
            Unsupported: it is none.
        """
        constant = self.constant(name)
        if not isinstance(constant, Stored) or not isinstance(constant.value, Immediate):
            raise Unsupported(f"parameter '{name}' is no text")
        return _only(name, constant.value.texts)

    def text(self, name: str, choices: Sequence[str], default: str) -> str:
        """A constant string, one of `choices`.

        Raises:
            Unsupported: it is another one.
        """
        if not self.has(name):
            return default
        found = self.string(name)
        if found not in choices:
            raise Unsupported(f"{name} '{found}' is none of {', '.join(choices)}")
        return found


def _only(name: str, found: Sequence[T]) -> T:
    if len(found) != 1:
        raise Unsupported(f"parameter '{name}' has {len(found)} elements, not one")
    return found[0]
