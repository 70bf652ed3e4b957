"""The tensors that a kernel is called with."""

from torch import Tensor


class Values:
    """The tensors one call gets, by parameter.

    Attributes:
        owned: whether the first parameter's memory is nobody else's and may be overwritten.
    """

    __slots__ = ("_lists", "_tensors", "owned")

    def __init__(self, *, owned: bool = False) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._lists: dict[str, list[Tensor]] = {}
        self.owned = owned

    def put(self, name: str, tensors: list[Tensor]) -> None:
        """Set a parameter."""
        self._tensors[name] = tensors[0]
        self._lists[name] = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def get(self, name: str) -> Tensor | None:
        """An optional parameter."""
        return self._tensors.get(name)

    def many(self, name: str) -> list[Tensor]:
        """All tensors of a parameter that takes several."""
        return self._lists[name]
