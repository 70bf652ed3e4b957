"""Faults that only a decoder can have: mask, rotary angles, heads, cache, and its two functions."""

from collections.abc import Callable, Iterator

import numpy as np

from validation.kill_matrix.draft import (
    Draft,
    Message,
    Site,
    argument,
    numbers,
    set_argument,
    set_numbers,
    swap_arguments,
)
from validation.kill_matrix.faults_ops import NEGATIVE_INDEX, at, feeds_select
from validation.kill_matrix.faults_weights import rewriting
from validation.kill_matrix.mutation import Mutation

DEEP_MASK = "mask value still far below any score"


def attention_faults(draft: Draft, file: str) -> Iterator[Mutation]:
    """Of every fused attention, in the vision tower too."""
    for site in draft.sites("scaled_dot_product_attention"):
        for first, second in (("query", "key"), ("key", "value"), ("query", "value")):
            yield at(site, file, f"{first} and {second} exchanged", "", _exchanging(first, second))
        if "attn_mask" in site.op.inputs:
            yield at(site, file, "attention mask dropped", "", _unmasked)
    for name, value in draft.blobs().items():
        shape = draft.array(value).shape
        if len(shape) == 2 and name.endswith("qkv_weight"):
            rows = shape[0] // 3
            yield _weights(file, "attention scale x1.02", name, _scaling(rows, 1.02))
            yield _weights(file, "heads rolled by one", name, _rolling(rows, 32))


def decoder_faults(draft: Draft, file: str, *, head_dim: int) -> Iterator[Mutation]:
    """All faults of a decoder's package."""
    yield from _mask(draft, file)
    yield from _rotary(draft, file)
    yield from _heads(draft, file, head_dim)
    yield from _cache(draft, file)
    yield from _functions(draft, file)


def _mask(draft: Draft, file: str) -> Iterator[Mutation]:
    for site in draft.sites("mul"):
        for parameter in ("x", "y"):
            value = draft.parameter(site, parameter)
            if value is None or value.HasField("blobFileValue") or numbers(value)[0] > -1e3:
                continue
            for kind, new in (
                (DEEP_MASK, -2e4),
                ("mask value too small", -5.0),
                ("mask value of the wrong sign", 3e4),
                ("mask value infinite", float("-inf")),
            ):
                yield at(
                    site, file, kind, f"{numbers(value)[0]:g} -> {new:g}", _set(parameter, new)
                )
    for function in draft.functions:
        for name, value in _integer_blobs(draft, function):
            shape = draft.array(value).shape
            for by in (-1, 1):
                kinds = {4: "mask off by one", 1: "rotary positions off by one"}
                if len(shape) in kinds:
                    yield Mutation(
                        kind=kinds[len(shape)],
                        file=file,
                        where=f"{function}/{name}",
                        what=f"{by:+d}",
                        edit=_shifted(function, name, by),
                    )


def _integer_blobs(draft: Draft, function: str) -> Iterator[tuple[str, Message]]:
    for op in draft.block(function).operations:
        if op.type == "const" and op.attributes["val"].HasField("blobFileValue"):
            value = op.attributes["val"]
            if draft.array(value).dtype.kind == "i":
                yield op.outputs[0].name, value


def _shifted(function: str, name: str, by: int) -> Callable[[Draft], None]:
    def edit(draft: Draft) -> None:
        array = draft.array(dict(_integer_blobs(draft, function))[name])
        array += array.dtype.type(by)

    return edit


def _rotary(draft: Draft, file: str) -> Iterator[Mutation]:
    if "rotary" not in "".join(draft.blobs()):
        return
    name = next(name for name in draft.blobs() if name.startswith("rotary"))
    for kind, rewrite in (
        ("rotary table one position late", lambda a: np.roll(a, 1, axis=0)),
        ("rotary cosines and sines exchanged", lambda a: np.roll(a, a.shape[1] // 2, axis=1)),
        ("rotary frequencies rolled", lambda a: np.roll(a, 1, axis=1)),
        ("rotary direction", _turned_back),
        ("rotary base 10000", lambda a: _table(a, 1e4)),
        ("rotary base x1.1", lambda a: _table(a, 1.1e6)),
        ("rotary table in float16", lambda a: a.astype(np.float16).astype(a.dtype)),
        ("rotary last position wrong", _last_row_wrong),
    ):
        if not (kind.endswith("float16") and draft.array(draft.blobs()[name]).itemsize == 2):
            yield _weights(file, kind, name, rewrite)


def _table(old: np.ndarray, base: float) -> np.ndarray:
    """Cosines, then sines, of all places; Su et al. 2021 (arXiv 2104.09864), section 3.2.2."""
    half = old.shape[1] // 2
    angles: np.ndarray = np.arange(len(old))[:, None] * base ** (-np.arange(half)[None] / half)
    table: np.ndarray = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return table.astype(old.dtype)


def _turned_back(old: np.ndarray) -> np.ndarray:
    half = old.shape[1] // 2
    return np.concatenate([old[:, :half], -old[:, half:]], axis=1)


def _last_row_wrong(old: np.ndarray) -> np.ndarray:
    old[-1] = old[-2]
    return old


def _heads(draft: Draft, file: str, head_dim: int) -> Iterator[Mutation]:
    for name in draft.blobs():
        if any(part in name for part in ("q_proj_weight", "k_proj_weight", "v_proj_weight")):
            yield _weights(file, "heads rolled by one", name, _rolling(None, head_dim))
        if "q_proj_weight" in name:
            yield _weights(file, "attention scale x1.02", name, _scaling(None, 1.02))
            yield _weights(
                file, "rotary halves interleaved", name, lambda a: _interleaved(a, head_dim)
            )
        if "o_proj_weight" in name:
            yield _weights(
                file, "heads rolled by one", name, lambda a: np.roll(a, head_dim, axis=1)
            )


def _interleaved(old: np.ndarray, head_dim: int) -> np.ndarray:
    """The other order of channel pairs: (2i, 2i + 1) where (i, i + E/2) belongs."""
    shape = old.shape
    pairs = old.reshape(shape[0] // head_dim, 2, head_dim // 2, *shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(shape).copy()


def _cache(draft: Draft, file: str) -> Iterator[Mutation]:
    for site in draft.sites("slice_update"):
        yield at(site, file, "cache write lost", "", _update_lost)
    for site in draft.sites("slice_by_index"):
        old = draft.parameter(site, "begin")
        if old is None or len(numbers(old)) != 4:
            continue
        layers = _num_layers(site, draft)
        slot = int(numbers(old)[0])
        if layers > 1:
            other = (slot + 1) % layers
            yield at(site, file, "state of another layer", f"{slot} -> {other}", _slot(other))
    for site in draft.sites("read_state"):
        yield at(site, file, "keys and values exchanged in the state", "", _other_state)
    for site in draft.sites("slice_by_index"):
        old = draft.parameter(site, "begin")
        if old is not None and numbers(old) == [0, 0, 0]:
            yield at(site, file, "second half of the mirrored row", "", _second_half)
    for site in draft.sites("sub"):
        value = draft.parameter(site, "y")
        if value is not None and numbers(value) == [1]:
            yield at(site, file, "last valid row off by one", "", _set("y", 2))
    for site in draft.sites("add"):
        value = draft.parameter(site, "y")
        if argument(site, "x") == "position" and value is not None and numbers(value):
            kind = NEGATIVE_INDEX if feeds_select(draft, site) else "cache end off by one"
            yield at(site, file, kind, "", _set("y", numbers(value)[0] + 1))


def _num_layers(site: Site, draft: Draft) -> int:
    source = argument(site, "x")
    for op in draft.block(site.function).operations:
        for output in op.outputs:
            if output.name == source:
                return int(output.type.tensorType.dimensions[0].constant.size)
    return 0


def _functions(draft: Draft, file: str) -> Iterator[Mutation]:
    if len(draft.functions) < 2:
        return
    yield Mutation(
        kind="functions exchanged", file=file, where="prefill and decode", edit=_exchange_functions
    )
    for function in draft.functions:
        outputs = list(draft.block(function).outputs)
        caches = [place for place, name in enumerate(outputs) if name.startswith("updated_")]
        if len(caches) == 2:
            yield Mutation(
                kind="key and value outputs exchanged",
                file=file,
                where=function,
                edit=_exchange_outputs(function),
            )


def _exchange_functions(draft: Draft) -> None:
    functions = draft.model.mlProgram.functions
    first, second = draft.functions
    kept = type(functions[first])()
    kept.CopyFrom(functions[first])
    functions[first].CopyFrom(functions[second])
    functions[second].CopyFrom(kept)


def _exchange_outputs(function: str) -> Callable[[Draft], None]:
    def edit(draft: Draft) -> None:
        renamed = {
            "updated_key_cache": "updated_value_cache",
            "updated_value_cache": "updated_key_cache",
        }
        for op in draft.block(function).operations:
            for output in op.outputs:
                output.name = renamed.get(output.name, output.name)
            for name in list(op.inputs):
                for binding in op.inputs[name].arguments:
                    if binding.HasField("name"):
                        binding.name = renamed.get(binding.name, binding.name)

    return edit


def _exchanging(first: str, second: str) -> Callable[[Draft, Site], None]:
    return lambda _, site: swap_arguments(site, first, second)


def _unmasked(_: Draft, site: Site) -> None:
    del site.op.inputs["attn_mask"]


def _update_lost(draft: Draft, site: Site) -> None:
    """Who would read the updated cache reads the old one."""
    old, new = argument(site, "x"), site.op.outputs[0].name
    for op in draft.block(site.function).operations:
        for name in list(op.inputs):
            for binding in op.inputs[name].arguments:
                if binding.name == new:
                    binding.name = old


def _other_state(_: Draft, site: Site) -> None:
    other = {"key_cache": "value_cache", "value_cache": "key_cache"}
    set_argument(site, "input", other[argument(site, "input")])


def _slot(slot: int) -> Callable[[Draft, Site], None]:
    def change(draft: Draft, site: Site) -> None:
        begin, end = draft.private(site, "begin"), draft.private(site, "end")
        set_numbers(begin, [slot, *numbers(begin)[1:]])
        set_numbers(end, [slot + 1, *numbers(end)[1:]])

    return change


def _second_half(draft: Draft, site: Site) -> None:
    begin, end = draft.private(site, "begin"), draft.private(site, "end")
    size = numbers(end)[2]
    set_numbers(begin, [0, 0, size])
    set_numbers(end, [*numbers(end)[:2], 2 * size])


def _set(parameter: str, new: float) -> Callable[[Draft, Site], None]:
    return lambda draft, site: set_numbers(draft.private(site, parameter), [new])


def _scaling(rows: int | None, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def rewrite(array: np.ndarray) -> np.ndarray:
        array[:rows] *= array.dtype.type(factor)
        return array

    return rewrite


def _rolling(rows: int | None, by: int) -> Callable[[np.ndarray], np.ndarray]:
    def rewrite(array: np.ndarray) -> np.ndarray:
        array[:rows] = np.roll(array[:rows], by, axis=0)
        return array

    return rewrite


def _weights(
    file: str, kind: str, name: str, rewrite: Callable[[np.ndarray], np.ndarray]
) -> Mutation:
    return Mutation(kind=kind, file=file, where=name, edit=rewriting(name, rewrite))
