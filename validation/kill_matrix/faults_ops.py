"""Faults of single operations: a wrong attribute, operand, or op."""

from collections.abc import Callable, Iterator

from validation.kill_matrix.draft import (
    Draft,
    Site,
    argument,
    numbers,
    output_type,
    set_argument,
    set_numbers,
    set_text,
    swap_arguments,
    tensor_shape,
    text,
)
from validation.kill_matrix.mutation import Mutation

Numbers = list[float]

_OTHER_OPS = {
    "add": ("sub", "mul", "maximum"),
    "mul": ("add",),
    "sub": ("add",),
    "greater": ("greater_equal", "less", "less_equal"),
    "relu": ("identity",),
    "silu": ("relu", "sigmoid"),
    "sigmoid": ("tanh",),
    "reduce_mean": ("reduce_max", "reduce_sum"),
}
"""Ops of the same parameters, so that only the type has to change."""

COMMUTED = "operands of a commutative op exchanged"
IGNORED_PAD = "pad of a convolution without padding"
SINGLE_PLACE = "stride of a 1x1 convolution over a 1x1 input"
NEGATIVE_INDEX = "wrap of negative indices"
INDEX_CHECK = "validate_indices set"


def op_faults(draft: Draft, file: str) -> Iterator[Mutation]:
    """Every such fault of every operation."""
    for kind, faults in _FAULTS.items():
        for site in draft.sites(kind):
            yield from faults(draft, site, file)
    for site in draft.sites(*_OTHER_OPS):
        yield from _other(draft, site, file)


def text_of(draft: Draft, site: Site, parameter: str) -> str:
    """A string parameter."""
    value = draft.parameter(site, parameter)
    return "" if value is None else text(value)


def _conv(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    changes: list[tuple[str, str, Callable[[Numbers], Numbers]]] = [
        (
            "strides",
            SINGLE_PLACE if _is_single_place(draft, site) else "stride",
            lambda old: [3 - each for each in old],
        ),
        ("groups", "groups", lambda old: [1.0 if old[0] > 1 else 2.0]),
    ]
    value = draft.parameter(site, "pad")
    pads = numbers(value) if value is not None else []
    if text_of(draft, site, "pad_type") == "custom" and any(pads):
        changes += [
            ("pad", "padding moved", lambda old: [old[0] + 1, old[1] - 1, *old[2:]]),
            ("pad", "padding dropped", lambda old: [0.0] * len(old)),
        ]
        yield at(site, file, "dilation 2 with padding to match", "", _dilate)
    elif pads:
        changes.append(("pad", IGNORED_PAD, lambda old: [each + 1 for each in old]))
    for parameter, kind, new in changes:
        yield _numbers(draft, site, file, parameter=parameter, kind=kind, new=new)


def _is_single_place(draft: Draft, site: Site) -> bool:
    """Whether a 1x1 kernel gives a 1x1 result, so that it has a single place to stand at."""
    weight = draft.parameter(site, "weight")
    places = [int(each.constant.size) for each in site.op.outputs[0].type.tensorType.dimensions]
    return weight is not None and places[2:] == [1, 1] and tensor_shape(weight)[2:] == (1, 1)


def _dilate(draft: Draft, site: Site) -> None:
    """The same output size from a kernel with holes."""
    set_numbers(draft.private(site, "dilations"), [2, 2])
    pad = draft.private(site, "pad")
    set_numbers(pad, [2 * each for each in numbers(pad)])


def _layer_norm(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    changes: tuple[tuple[str, str, Callable[[Numbers], Numbers]], ...] = (
        ("epsilon", "epsilon x10", lambda old: [10 * old[0]]),
        ("epsilon", "epsilon 1e-3", lambda _: [1e-3]),
        ("axes", "normalized axis", lambda old: [old[0] - 1]),
    )
    for parameter, kind, new in changes:
        yield _numbers(draft, site, file, parameter=parameter, kind=kind, new=new)
    for name in ("gamma", "beta"):
        if name in site.op.inputs:
            yield at(site, file, f"{name} dropped", "", _without(name))


def _gelu(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    for mode in ("TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"):
        yield _text(draft, site, file, parameter="mode", new=mode)


def _cast(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    for dtype in ("int32", "bool"):
        if text_of(draft, site, "dtype") != dtype:
            yield _text(draft, site, file, parameter="dtype", new=dtype)


def _reduce_mean(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    changes: tuple[Callable[[Numbers], Numbers], ...] = (lambda _: [1.0, 2.0], lambda old: old[:1])
    for new in changes:
        yield _numbers(draft, site, file, parameter="axes", kind="reduced axes", new=new)


def _transpose(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    yield _numbers(draft, site, file, parameter="perm", kind="permutation", new=_rotated)


def _split(_: Draft, site: Site, file: str) -> Iterator[Mutation]:
    if len(site.op.outputs) > 1 and output_type(site) == output_type(site, 1):
        yield at(site, file, "split results exchanged", "", _swap_outputs)


def _gather(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    yield _numbers(
        draft, site, file, parameter="validate_indices", kind=INDEX_CHECK, new=lambda _: [1.0]
    )


def _sigmoid(_: Draft, site: Site, file: str) -> Iterator[Mutation]:
    yield at(site, file, "op replaced", "sigmoid -> sigmoid_hard", _hard_sigmoid)


def _concat(_: Draft, site: Site, file: str) -> Iterator[Mutation]:
    values = site.op.inputs["values"].arguments
    if len(values) == 2:
        yield at(site, file, "concat order", "", _reverse_values)


def _reverse_values(_: Draft, site: Site) -> None:
    values = site.op.inputs["values"].arguments
    first, second = values[0].name, values[1].name
    values[0].name, values[1].name = second, first


def _swap_outputs(_: Draft, site: Site) -> None:
    first, second = site.op.outputs[0].name, site.op.outputs[1].name
    site.op.outputs[0].name, site.op.outputs[1].name = second, first


def _other(draft: Draft, site: Site, file: str) -> Iterator[Mutation]:
    replaced = NEGATIVE_INDEX if feeds_select(draft, site) else "op replaced"
    for kind in _OTHER_OPS[site.op.type]:
        yield at(site, file, replaced, f"{site.op.type} -> {kind}", _retype(kind))
    if "y" in site.op.inputs and argument(site, "x") and argument(site, "y"):
        both_computed = draft.parameter(site, "x") is None and draft.parameter(site, "y") is None
        if site.op.type in ("add", "mul"):
            if both_computed:
                yield at(site, file, COMMUTED, site.op.type, _swap_operands)
        elif both_computed:
            yield at(site, file, "operands exchanged", site.op.type, _swap_operands)
        if both_computed and site.op.type == "add":
            yield at(site, file, "residual taken twice", "", _double)


def feeds_select(draft: Draft, site: Site) -> bool:
    """Whether it is what a negative index becomes: the converter has a `select` for those."""
    name = site.op.outputs[0].name
    return any(
        argument(each, "b") == name
        for each in draft.sites("select")
        if each.function == site.function
    )


def _retype(kind: str) -> Callable[[Draft, Site], None]:
    def change(_: Draft, site: Site) -> None:
        site.op.type = kind

    return change


def _hard_sigmoid(draft: Draft, site: Site) -> None:
    """min(max(0.2 x + 0.5, 0), 1); its numbers are copies of an epsilon, a scalar of float32."""
    scalar = draft.parameter(next(draft.sites("layer_norm")), "epsilon")
    site.op.type = "sigmoid_hard"
    for name, number in (("alpha", 0.2), ("beta", 0.5)):
        value = site.op.inputs[name].arguments.add().value
        value.CopyFrom(scalar)
        set_numbers(value, [number])


def _swap_operands(_: Draft, site: Site) -> None:
    swap_arguments(site, "x", "y")


def _double(_: Draft, site: Site) -> None:
    set_argument(site, "y", argument(site, "x"))


def _without(name: str) -> Callable[[Draft, Site], None]:
    def change(_: Draft, site: Site) -> None:
        del site.op.inputs[name]

    return change


def _rotated(old: Numbers) -> Numbers:
    return [*old[1:], old[0]]


def _numbers(
    draft: Draft,
    site: Site,
    file: str,
    *,
    parameter: str,
    kind: str,
    new: Callable[[Numbers], Numbers],
) -> Mutation:
    value = draft.parameter(site, parameter)
    old = numbers(value) if value is not None else []
    what = f"{_short(old)} -> {_short(new(old))}" if old else ""

    def change(copy: Draft, found: Site) -> None:
        private = copy.private(found, parameter)
        set_numbers(private, new(numbers(private)))

    return at(site, file, kind, what, change)


def _text(draft: Draft, site: Site, file: str, *, parameter: str, new: str) -> Mutation:
    old = text_of(draft, site, parameter)

    def change(copy: Draft, found: Site) -> None:
        set_text(copy.private(found, parameter), new)

    return at(site, file, f"{site.op.type} {parameter}", f"{old} -> {new}", change)


def at(
    site: Site, file: str, kind: str, what: str, change: Callable[[Draft, Site], None]
) -> Mutation:
    """A fault of one operation."""
    return Mutation(
        kind=kind,
        file=file,
        where=site.name,
        what=what,
        edit=lambda draft: change(draft, draft.again(site)),
    )


def _short(values: Numbers) -> str:
    return ",".join(f"{value:g}" for value in values)


_FAULTS: dict[str, Callable[[Draft, Site, str], Iterator[Mutation]]] = {
    "conv": _conv,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "cast": _cast,
    "reduce_mean": _reduce_mean,
    "transpose": _transpose,
    "concat": _concat,
    "split": _split,
    "gather": _gather,
    "sigmoid": _sigmoid,
}
"""Faults by op type."""
