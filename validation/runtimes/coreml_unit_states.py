"""The decoder's caches read back, and what must hold of them whatever executes the packages.

After a prompt of n rows and after one row more, the keys and values of every layer are read. They
have the declared shape; the n (then n + 1) valid positions are finite and none is left at zero;
nothing is written behind what the calls cover, as a state begins as zeros; and the last row
changed nothing in front of it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from reference.errors import UserError
from validation.runtimes.base import Floats
from validation.runtimes.chunked_decoder import ChunkedDecoder, Memory
from validation.runtimes.language_layout import CacheTensor, LanguageLayout

PROMPT = "prompt"
STEP = "step"

MAX_ROWS = 40
"""Enough to end inside a chunk; every position and layer is read back twice."""

S = TypeVar("S")
ReadState = Callable[[S, str], np.ndarray]
"""Reads a state by name."""


def read_caches(
    decoder: ChunkedDecoder[S], rows: Floats, read_state: ReadState[S]
) -> dict[str, np.ndarray]:
    """Takes in all rows but the last, reads the caches, takes in the last, and reads them again.

    Args:
        decoder: the packages.
        rows: [L, H], L at least 2.
        read_state: of what executes them.

    Returns:
        [layers, G, S, E] by `prompt/<package>/<tensor>` and `step/<package>/<tensor>`.

    Raises:
        UserError: there are fewer than two rows, or no room for them.
    """
    if len(rows) < 2:
        raise UserError(f"caches are read after a prompt and a step, not after {len(rows)} rows")
    memory = decoder.new_memory()
    decoder.append(rows[:-1], memory)
    found = dict(_read(PROMPT, decoder.layout, memory, read_state))
    decoder.append(rows[-1:], memory)
    return found | dict(_read(STEP, decoder.layout, memory, read_state))


def _read(
    when: str, layout: LanguageLayout, memory: Memory[S], read_state: ReadState[S]
) -> Iterable[tuple[str, np.ndarray]]:
    for chunk, kept in zip(layout.chunks, memory.chunks, strict=True):
        for tensor in chunk.cache:
            passed = tensor.updated and kept.cache[tensor.name]
            array = passed if tensor.updated else read_state(kept.state, tensor.name)
            # A copy: what is read may be the state's own memory.
            yield f"{when}/{chunk.package}/{tensor.name}", np.array(array)


def cache_problems(
    layout: LanguageLayout, num_rows: int, found: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """What is wrong with the caches.

    Args:
        layout: declares them.
        num_rows: L of `read_caches`.
        found: what it returned.
    """
    problems: list[str] = []
    length = num_rows - 1
    covered = min(-(-length // layout.prefill_chunk) * layout.prefill_chunk, layout.cache_length)
    for chunk in layout.chunks:
        for tensor in chunk.cache:
            name = f"{chunk.package}/{tensor.name}"
            prompt, step = (found.get(f"{when}/{name}") for when in (PROMPT, STEP))
            wrong = [
                *_problems(f"{PROMPT}/{name}", tensor, prompt, valid=length, covered=covered),
                *_problems(
                    f"{STEP}/{name}", tensor, step, valid=num_rows, covered=max(covered, num_rows)
                ),
            ]
            if not wrong and prompt is not None and step is not None:
                changed = (prompt != step)[:, :, :length]
                if changed.any():
                    wrong.append(
                        f"{STEP}/{name}: changed {int(changed.sum())} values in front of the step"
                    )
            problems += wrong
    return tuple(problems)


def _problems(
    name: str, tensor: CacheTensor, array: np.ndarray | None, *, valid: int, covered: int
) -> Iterable[str]:
    if array is None:
        yield f"{name}: not read back"
        return
    if array.shape != tensor.shape:
        yield f"{name}: declared as {list(tensor.shape)}, read back as {list(array.shape)}"
        return
    if array.dtype.kind != "f":
        yield f"{name}: declared as {tensor.dtype}, read back as {array.dtype}"
        return
    rows = array[:, :, :valid]
    if not np.isfinite(rows).all():
        yield f"{name}: {int((~np.isfinite(rows)).sum())} values of {valid} rows are not finite"
    elif empty := int((rows == 0).all(axis=(1, 3)).sum()):
        yield f"{name}: {empty} of {rows.shape[0] * valid} rows of keys or values are all zero"
    if strays := int((array[:, :, covered:] != 0).sum()):
        yield f"{name}: {strays} values behind position {covered}, where nothing was written"
