"""Faults of stored weights: the right program over wrong numbers."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from validation.kill_matrix.draft import Draft, Message, tensor_shape
from validation.kill_matrix.mutation import Mutation

ROTARY_SIGN = "sign of the whole rotary table flipped"

Rewrite = Callable[[np.ndarray], np.ndarray]


def weight_faults(draft: Draft, file: str) -> Iterator[Mutation]:
    """Every fault of every float blob, and of every pair of blobs of one shape."""
    floats = {
        name: value for name, value in draft.blobs().items() if draft.array(value).dtype.kind == "f"
    }
    for name, value in floats.items():
        for usual, rewrite in _rewrites(draft.array(value)):
            kind = ROTARY_SIGN if (usual, name[:6]) == ("sign flipped", "rotary") else usual
            yield Mutation(kind=kind, file=file, where=name, edit=rewriting(name, rewrite))
    for first, second in _twins(floats):
        kind = "norm weights swapped" if "norm" in first else "weight blobs swapped"
        yield Mutation(
            kind=kind, file=file, where=f"{first} and {second}", edit=_swap(first, second)
        )
        yield Mutation(
            kind="blob of another tensor",
            file=file,
            where=first,
            what=f"offset of {second}",
            edit=_redirect(first, second),
        )


def layer_faults(draft: Draft, file: str) -> Iterator[Mutation]:
    """All weights of two neighbouring decoder layers change places."""
    names = list(draft.blobs())
    layers = sorted({name.split("_")[1] for name in names if name.startswith("layers_")}, key=int)
    for first, second in pairwise(layers):
        pairs = [
            (name, name.replace(f"layers_{first}_", f"layers_{second}_", 1))
            for name in names
            if name.startswith(f"layers_{first}_")
        ]
        yield Mutation(
            kind="decoder layers swapped",
            file=file,
            where=f"layers {first} and {second}",
            edit=_swap_all(pairs),
        )


def rewriting(name: str, rewrite: Rewrite) -> Callable[[Draft], None]:
    """An edit that replaces the elements of a blob."""

    def edit(draft: Draft) -> None:
        array = draft.array(draft.blobs()[name])
        array[...] = rewrite(array.copy())

    return edit


def _rewrites(array: np.ndarray) -> Iterator[tuple[str, Rewrite]]:
    shape = array.shape
    if not np.any(array):
        return  # all zeros: scaled, turned or dropped they are what they were
    yield "scale x1.02", lambda a: a * a.dtype.type(1.02)
    yield "sign flipped", lambda a: -a
    if len(shape) == 1:
        yield "vector zeroed (bias or norm dropped)", np.zeros_like
    if len(shape) > 1 and shape[0] > 1:
        yield "output channels rolled by one", lambda a: np.roll(a, 1, axis=0)
    if len(shape) > 1 and shape[0] == shape[1] and array.size == shape[0] * shape[1]:
        yield "square weight transposed", lambda a: np.swapaxes(a, 0, 1).copy()
    if len(shape) == 4 and shape[3] > 1:
        yield "kernel mirrored", lambda a: a[..., ::-1].copy()
        yield "kernel transposed", lambda a: np.swapaxes(a, 2, 3).copy()
    if len(shape) == 4 and shape[1] > 1:
        yield "input channels rolled by one", lambda a: np.roll(a, 1, axis=1)
    if array.dtype.itemsize == 4 and array.ndim > 1 and not _survives_bfloat16(array):
        yield "stored as bfloat16", _as_bfloat16


def _survives_bfloat16(array: np.ndarray) -> bool:
    return np.array_equal(_as_bfloat16(array), array)


def _as_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper half of each float32."""
    return (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _twins(blobs: dict[str, Message]) -> Iterator[tuple[str, str]]:
    """Neighbours among the blobs of one shape."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, value in blobs.items():
        groups.setdefault(tensor_shape(value), []).append(name)
    for names in groups.values():
        yield from pairwise(names)


def _swap(first: str, second: str) -> Callable[[Draft], None]:
    return _swap_all([(first, second)])


def _swap_all(pairs: list[tuple[str, str]]) -> Callable[[Draft], None]:
    def edit(draft: Draft) -> None:
        blobs = draft.blobs()
        for first, second in pairs:
            one, other = draft.array(blobs[first]), draft.array(blobs[second])
            one[...], other[...] = other.copy(), one.copy()

    return edit


def _redirect(first: str, second: str) -> Callable[[Draft], None]:
    """One function's constant points at another blob; the blobs stay."""

    def edit(draft: Draft) -> None:
        blobs = draft.blobs()
        blobs[first].blobFileValue.offset = blobs[second].blobFileValue.offset

    return edit
