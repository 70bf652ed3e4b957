"""States of a program: tensors that outlive a run, such as a decoder's cache."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from validation.runtimes.ml_program.errors import InputError
from validation.runtimes.ml_program.tensors import STORAGE, from_numpy, to_numpy
from validation.runtimes.ml_program.types import TensorType


class State:
    """All states that a run reads and writes.

    Functions of one package may share it where they declare the same states, as prefill and
    decode do. Keep to one rounding per state: what a run without rounding leaves in it is not
    rounded later. A run that fails half way may leave it half updated.
    """

    def __init__(self, types: Mapping[str, TensorType]) -> None:
        """Zeros, as Core ML's `make_state` gives."""
        self.types = dict(types)
        self._tensors = {
            name: torch.zeros(_fixed(declared), dtype=STORAGE[declared.dtype])
            for name, declared in types.items()
        }

    def read(self, name: str) -> np.ndarray:
        """A copy of one state: float32 where the state is fp16, so that nothing is lost.

        Raises:
            InputError: there is no such state.
        """
        return to_numpy(self.tensor(name), self._type(name).dtype, rounded=False)

    def write(self, name: str, array: np.ndarray) -> None:
        """Set one state.

        Raises:
            InputError: there is no such state, or the shape differs.
        """
        declared = self._type(name)
        if not declared.admits(array.shape):
            raise InputError(f"state '{name}' is {declared}, not {list(array.shape)}")
        self._tensors[name] = from_numpy(np.array(array), declared.dtype).clone()

    def copy(self) -> "State":
        """An independent copy."""
        twin = State({})
        twin.types = dict(self.types)
        twin._tensors = {name: tensor.clone() for name, tensor in self._tensors.items()}
        return twin

    def tensor(self, name: str) -> Tensor:
        """The tensor itself, for the interpreter."""
        self._type(name)
        return self._tensors[name]

    def put(self, name: str, tensor: Tensor) -> None:
        """Make `tensor` the content of a state, for the interpreter."""
        self._tensors[name] = tensor

    def _type(self, name: str) -> TensorType:
        if name not in self.types:
            known = ", ".join(self.types) or "none"
            raise InputError(f"there is no state '{name}'; states: {known}")
        return self.types[name]


def _fixed(declared: TensorType) -> tuple[int, ...]:
    if declared.shape is None or None in declared.shape:
        raise InputError(f"a state's shape is not fixed: {declared}")
    return tuple(size for size in declared.shape if size is not None)
