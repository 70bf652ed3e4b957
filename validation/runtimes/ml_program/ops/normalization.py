"""Normalizations (iOS 15 and iOS 17 `normalization`)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from validation.runtimes.ml_program.op import (
    FLOAT,
    Kernel,
    OpDef,
    maybe,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


def _batch_norm(view: OpView) -> Kernel:
    epsilon = view.number("epsilon", 1e-5)

    def run(values: Values) -> Tensor:
        return F.batch_norm(
            values["x"],
            values["mean"],
            values["variance"],
            values.get("gamma"),
            values.get("beta"),
            eps=epsilon,
        )

    return run


def _instance_norm(view: OpView) -> Kernel:
    epsilon = view.number("epsilon", 1e-5)
    axes = list(range(2, view.rank("x")))
    if not axes:
        raise Unsupported("its input has no spatial dimensions")
    channels = [1, -1] + [1] * len(axes)

    def run(values: Values) -> Tensor:
        # Not F.instance_norm: it refuses a single spatial element, which MIL allows.
        normal = _standardize(values["x"], axes, epsilon)
        return _scale_and_shift(normal, values, channels)

    return run


def _layer_norm(view: OpView) -> Kernel:
    epsilon = view.number("epsilon", 1e-5)
    rank = view.rank("x")
    axes = sorted(axis % rank for axis in view.integers("axes", range(rank)))
    trailing = axes == list(range(rank - len(axes), rank))

    def run(values: Values) -> Tensor:
        x = values["x"]
        if trailing:
            shape = x.shape[axes[0] :]
            return F.layer_norm(x, shape, values.get("gamma"), values.get("beta"), eps=epsilon)
        broadcast = [x.shape[axis] if axis in axes else 1 for axis in range(rank)]
        return _scale_and_shift(_standardize(x, axes, epsilon), values, broadcast)

    return run


def _l2_norm(view: OpView) -> Kernel:
    epsilon = view.number("epsilon", 1e-6)
    if view.rank("x") < 3:
        raise Unsupported(f"its input has rank {view.rank('x')}, less than 3")

    def run(values: Values) -> Tensor:
        x = values["x"]
        squares = x.square().sum(dim=(-3, -2, -1), keepdim=True)
        return x / (squares + epsilon).sqrt()

    return run


def _local_response_norm(view: OpView) -> Kernel:
    size = view.integer("size")
    alpha, beta, k = view.number("alpha", 1e-4), view.number("beta", 0.75), view.number("k", 1.0)

    def run(values: Values) -> Tensor:
        return F.local_response_norm(values["x"], size, alpha, beta, k)

    return run


def _standardize(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, dim=list(axes), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def _scale_and_shift(x: Tensor, values: Values, shape: Sequence[int]) -> Tensor:
    gamma, beta = values.get("gamma"), values.get("beta")
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


_AFFINE = (maybe("gamma", FLOAT), maybe("beta", FLOAT), setting("epsilon"))

DEFINITIONS = (
    OpDef(
        kind="batch_norm",
        params=(tensor("x", FLOAT), tensor("mean", FLOAT), tensor("variance", FLOAT), *_AFFINE),
        bind=_batch_norm,
    ),
    OpDef(kind="instance_norm", params=(tensor("x", FLOAT), *_AFFINE), bind=_instance_norm),
    OpDef(
        kind="layer_norm", params=(tensor("x", FLOAT), setting("axes"), *_AFFINE), bind=_layer_norm
    ),
    OpDef(kind="l2_norm", params=(tensor("x", FLOAT), setting("epsilon")), bind=_l2_norm),
    OpDef(
        kind="local_response_norm",
        params=(
            tensor("x", FLOAT),
            required("size"),
            setting("alpha"),
            setting("beta"),
            setting("k"),
        ),
        bind=_local_response_norm,
    ),
)
