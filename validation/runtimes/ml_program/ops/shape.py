"""Ops that change or tell a tensor's shape and keep the order of its elements."""

from collections.abc import Sequence

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    Kernel,
    OpDef,
    moves,
    required,
    setting,
    tensor,
    tensors,
)
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _reshape(view: OpView) -> Kernel:
    wanted = view.running_integers("shape")
    from_the_right = view.opset >= 7

    def run(values: Values) -> Tensor:
        x = values["x"]
        return x.reshape(_filled(x.shape, wanted(values), from_the_right=from_the_right))

    return run


def _filled(shape: Sequence[int], wanted: Sequence[int], *, from_the_right: bool) -> list[int]:
    """`wanted` with each 0 replaced by the input's size there.

    Until iOS 16 both shapes must have the same rank; from iOS 17 on sizes correspond from the
    right, and a 0 without a counterpart becomes 1.
    """
    if 0 not in wanted:
        return list(wanted)
    offset = len(shape) - len(wanted)
    if offset and not from_the_right:
        raise ValueError(f"shape {list(wanted)} holds 0 but the input has rank {len(shape)}")
    return [
        size or (shape[index + offset] if index + offset >= 0 else 1)
        for index, size in enumerate(wanted)
    ]


def _reshape_like(view: OpView) -> Kernel:
    begins, ends = view.list_of_integers("begins"), view.list_of_integers("ends")
    masks = view.list_of_integers("end_masks")

    def run(values: Values) -> Tensor:
        shape: list[int] = []
        references = values.many("ref_tensors")
        for reference, begin, end, mask in zip(references, begins, ends, masks, strict=True):
            shape += reference.shape[begin:] if mask else reference.shape[begin:end]
        return values["x"].reshape(shape)

    return run


def _expand_dims(view: OpView) -> Kernel:
    axes = view.integers("axes")
    rank = view.rank("x") + len(axes)
    if any(not -rank <= axis < rank for axis in axes):
        raise Unsupported(f"axes {axes} lie outside rank {rank}")
    places = sorted(axis % rank for axis in axes)

    def run(values: Values) -> Tensor:
        x = values["x"]
        for place in places:
            x = x.unsqueeze(place)
        return x

    return run


def _squeeze(view: OpView) -> Kernel:
    axes = view.integers("axes", range(view.rank("x")))

    def run(values: Values) -> Tensor:
        return values["x"].squeeze(axes)  # keeps dimensions that are not 1

    return run


def _flatten2d(view: OpView) -> Kernel:
    axis = view.integer("axis", 1)

    def run(values: Values) -> Tensor:
        x = values["x"]
        before = 1
        for size in x.shape[:axis]:
            before *= size
        return x.reshape(before, -1) if x.numel() else x.reshape(before, 0)

    return run


def _transpose(view: OpView) -> Kernel:
    perm = view.integers("perm")
    if len(perm) != view.rank("x"):
        raise Unsupported(f"perm {perm} does not fit rank {view.rank('x')}")

    def run(values: Values) -> Tensor:
        return values["x"].permute(perm) if perm else values["x"]

    return run


def _shape(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return torch.tensor(values["x"].shape, dtype=torch.int32)

    return run


def _identity(view: OpView) -> Kernel:  # noqa: ARG001 - there is nothing to read
    def run(values: Values) -> Tensor:
        return values["x"]

    return run


DEFINITIONS = (
    moves("reshape", (tensor("x"), tensor("shape")), _reshape),
    moves(
        "reshape_like",
        (
            tensor("x"),
            tensors("ref_tensors"),
            tensors("begins"),
            tensors("ends"),
            tensors("end_masks"),
        ),
        _reshape_like,
        since=6,
    ),
    moves("expand_dims", (tensor("x"), required("axes")), _expand_dims),
    moves("squeeze", (tensor("x"), setting("axes")), _squeeze),
    moves("flatten2d", (tensor("x"), setting("axis")), _flatten2d),
    moves("transpose", (tensor("x"), required("perm")), _transpose),
    moves("identity", (tensor("x"),), _identity),
    OpDef(kind="shape", params=(tensor("x"),), bind=_shape, result=DType.INT32, exact=True),
)
