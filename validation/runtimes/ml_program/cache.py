"""A bounded cache of constants in the form kernels take them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

DEFAULT_LIMIT_BYTES = 4 << 30


class ConstantCache:
    """Decompressed and widened constants, at most `limit_bytes` of them.

    Least recently used entries go first, except those that the present or the previous run used:
    every run touches its constants in the same order, so with plain LRU a model a little larger
    than the limit would never find anything. What does not fit is made anew at each use.
    One cache may serve several packages, such as the chunks of one decoder.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._run = 0
        self._entries: OrderedDict[Hashable, tuple[Tensor, int]] = OrderedDict()

    def begin_run(self) -> None:
        """Tell entries of this run from those of earlier ones."""
        self._run += 1

    def drop(self, unwanted: Callable[[Hashable], bool]) -> None:
        """Let go of the entries whose keys are unwanted."""
        for key in [key for key in self._entries if unwanted(key)]:
            held, _ = self._entries.pop(key)
            self.held_bytes -= held.numel() * held.element_size()

    def get(self, key: Hashable) -> Tensor | None:
        """The entry for `key`, marked as used in this run."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries[key] = (found[0], self._run)
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep `tensor` if there is, or can be made, room for it."""
        size = tensor.numel() * tensor.element_size()
        while self.held_bytes + size > self.limit_bytes and self._entries:
            oldest, (held, last_run) = next(iter(self._entries.items()))
            if last_run >= self._run - 1:
                return
            del self._entries[oldest]
            self.held_bytes -= held.numel() * held.element_size()
        if self.held_bytes + size <= self.limit_bytes:
            self._entries[key] = (tensor, self._run)
            self.held_bytes += size
