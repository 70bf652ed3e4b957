"""Constants of one package as tensors, made when a kernel needs them."""

from collections.abc import Hashable

from torch import Tensor

from validation.runtimes.ml_program.cache import ConstantCache
from validation.runtimes.ml_program.constants import Constant, Derived, Stored, evaluate
from validation.runtimes.ml_program.tensors import from_numpy
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.weights import Weights


class ConstantStore:
    """Tensors of constants: float32 blobs straight from the mapping, all else through the cache."""

    def __init__(self, weights: Weights, cache: ConstantCache) -> None:
        self._weights = weights
        self._cache = cache
        self._views: dict[Hashable, Tensor] = {}  # of the mapping: they take no memory

    def begin_run(self) -> None:
        """Tell the cache that a run begins."""
        self._cache.begin_run()

    def forget(self) -> None:
        """Let go of this package's constants."""
        self._cache.drop(lambda key: isinstance(key, tuple) and key[0] is self._weights)

    def tensor(self, constant: Constant, *, rounded: bool) -> Tensor:
        """A constant as kernels take it.

        Args:
            rounded: whether decompressed fp16 constants are rounded to fp16.

        Raises:
            PackageError: the package's data do not make the constant.
        """
        dtype = constant.type.dtype
        if isinstance(constant, Stored) and dtype not in (DType.FP16, DType.UINT16, DType.UINT32):
            if constant.key not in self._views:
                self._views[constant.key] = from_numpy(evaluate(constant, self._weights), dtype)
            return self._views[constant.key]
        rounds = rounded and isinstance(constant, Derived) and dtype is DType.FP16
        key = (self._weights, constant.key, rounds)
        found = self._cache.get(key)
        if found is None:
            found = from_numpy(evaluate(constant, self._weights), dtype)
            if rounds:
                found.copy_(found.half())  # made just now, so nobody else sees it change
            self._cache.put(key, found)
        return found
