"""A language model of which only a part is in memory: what is to run is read over what ran before.

Decoder layers and the head stay as far as a budget goes. Those beyond it share one block of memory,
as large as the largest of them, and are read into it when they run; running the same one again
reads nothing. The block is kept, for fresh pages cost ten times what the conversion to float32
does. The embedding is never there: its rows are read as tokens ask for them.

The values are those of the whole model and lie as aligned as there, so every product is the same to
the bit, whatever the budget.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from reference.budget import resident
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD, to_module
from reference.qwen2 import Qwen2
from reference.weights import Rows, Weights

_ALIGNED_BYTES = 64
"""As PyTorch's allocator aligns: where a tensor lies can change how its products are summed."""

_BLOCK_BYTES = 4 * 2**20
"""Rows that are converted at once; what they pass through then stays in the caches."""

_LANGUAGE = "language."


def stream_language(
    language: Qwen2, weights: Weights, *, dtype: torch.dtype, resident_bytes: int
) -> frozenset[str]:
    """Let layers and head read their weights when they run, but for those that fit a budget.

    Args:
        language: on the meta device.
        weights: where they are read from; its files must stay.
        dtype: of the parameters.
        resident_bytes: of decoder layers and head that may stay in memory.

    Returns:
        Names in `FastVLM`'s state dict that need not be loaded.
    """
    language.add_module("embed_tokens", RowsOfTable(weights.rows(EMBED_TOKENS), dtype))
    parts = list(_parts(language))
    sizes = (_size(module.parameters(), dtype) * dtype.itemsize for _, module in parts)
    stay = resident(sizes, resident_bytes)
    beyond = [part for part, stays in zip(parts, stay, strict=True) if not stays]
    names = {prefix + name for prefix, module in beyond for name in module.state_dict()}
    if beyond:
        memory = SharedMemory([module for _, module in beyond], weights, dtype)
        for prefix, module in beyond:
            memory.share(module, prefix)
    return frozenset({*names, to_module(EMBED_TOKENS)})


class RowsOfTable(nn.Module):
    """An embedding whose table stays where it is stored.

    Args:
        table: [V, H].
        dtype: of the rows that are returned.
    """

    def __init__(self, table: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        self._table = table
        self._dtype = dtype

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids of any shape [...] -> [..., H]."""
        return self._table[input_ids].to(self._dtype)


class SharedMemory:
    """Holds the parameters of one module at a time.

    Args:
        modules: on the meta device, those that will share it.
        weights: what they are read from.
        dtype: of the parameters.
    """

    def __init__(self, modules: Iterable[nn.Module], weights: Weights, dtype: torch.dtype) -> None:
        self._weights = weights
        self._stored = {to_module(name): name for name in weights.tensors}
        if weights.tied:
            self._stored[to_module(LM_HEAD)] = EMBED_TOKENS
        self._values = torch.empty(
            max(_size(each.parameters(), dtype) for each in modules), dtype=dtype
        )
        self._held: nn.Module | None = None
        self._absent: dict[str, Tensor] = {}

    def share(self, module: nn.Module, prefix: str) -> None:
        """Give a module its parameters whenever it is about to run and has them not.

        Args:
            module: one of those that the memory was made for.
            prefix: of its names in `FastVLM`'s state dict.
        """

        def before(running: nn.Module, args: tuple[object, ...]) -> None:
            del args
            if running is not self._held:
                self._take_back()
                self._give(running, prefix)

        module.register_forward_pre_hook(before)

    def _take_back(self) -> None:
        if self._held is not None:
            self._held.load_state_dict(self._absent, assign=True)
            self._held = None

    def _give(self, module: nn.Module, prefix: str) -> None:
        self._absent = module.state_dict()
        assert all(each.is_meta for each in self._absent.values()), "it has weights of its own"
        present: dict[str, Tensor] = {}
        start = 0
        for name, absent in self._absent.items():
            place = self._values[start : start + absent.numel()].view(absent.shape)
            _fill(place, self._weights.rows(self._stored[prefix + name]))
            present[name] = place
            start += _aligned(absent.numel(), self._values.dtype)
        module.load_state_dict(present, assign=True)
        self._held = module


def _parts(language: Qwen2) -> Iterator[tuple[str, nn.Module]]:
    """What runs as one: the prefix of its names in `FastVLM`'s state dict, and the module."""
    for index, layer in enumerate(language.layers):
        yield f"{_LANGUAGE}layers.{index}.", layer
    yield f"{_LANGUAGE}lm_head.", language.lm_head


def _fill(place: Tensor, rows: Rows) -> None:
    step = max(1, _BLOCK_BYTES // (place[0].numel() * place.element_size()))
    for start in range(0, len(place), step):
        block = slice(start, start + step)
        place[block].copy_(rows[block])


def _size(tensors: Iterable[Tensor], dtype: torch.dtype) -> int:
    """Values of tensors that lie one behind the other."""
    return sum(_aligned(each.numel(), dtype) for each in tensors)


def _aligned(count: int, dtype: torch.dtype) -> int:
    step = _ALIGNED_BYTES // dtype.itemsize
    return -(-count // step) * step
