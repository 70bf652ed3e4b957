"""What MLX can hold, decided from schemes and shapes alone, so that a plan can refuse early.

MLX has one kind of quantized matrix that our integers fit: affine groups of 32, 64 or 128 along the
input channels, all of them whole, with a float16 scale and a float16 bias (`mlx.core.quantize`). It
has no tables, and convolutions are never quantized (`mlx.nn.quantize` changes linear layers and
embeddings only).
"""

from collections.abc import Mapping
from math import prod

from fastvlm_compile.export.mlx.names import MlxLayout, to_mlx
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, Quantized, Shape, describe
from reference.checkpoint.names import LM_HEAD
from reference.errors import UserError

GROUP_SIZES = (32, 64, 128)

_LOADER_MULTIPLE = 64
"""Where the number of weights is no multiple of this, mlx-vlm's loader expects plain values."""


class MlxUnsupportedError(UserError):
    """MLX cannot hold a quantized tensor as it is."""


def check_mlx_scheme(name: str, scheme: Quantized, shape: Shape) -> None:
    """Refuse a scheme that MLX cannot hold for a tensor of this shape.

    Args:
        name: of the tensor, for the message.
        scheme: how it is quantized.
        shape: [O, I], or a convolution's.

    Raises:
        MlxUnsupportedError: not an affine scheme of whole groups of 32, 64 or 128, not a matrix, or
            a matrix that mlx-vlm's loader would take for unquantized.
    """
    if len(shape) != 2:
        raise MlxUnsupportedError(
            f"{name}: MLX has no quantized convolution, and its shape is {list(shape)}",
            hint="leave it in float16 for MLX",
        )
    if not isinstance(scheme, Affine) or scheme.block_size not in GROUP_SIZES:
        raise MlxUnsupportedError(
            f"{name}: MLX cannot hold {describe(scheme)}",
            hint="MLX holds int4 and int8 in blocks of 32, 64 or 128",
        )
    if shape[1] % scheme.block_size != 0:
        raise MlxUnsupportedError(
            f"{name}: groups of {scheme.block_size} do not divide its {shape[1]} input channels",
            hint="MLX has no short groups: choose a smaller block, or leave it in float16",
        )
    if prod(shape) % _LOADER_MULTIPLE != 0:
        raise MlxUnsupportedError(
            f"{name}: {prod(shape)} weights are no multiple of {_LOADER_MULTIPLE}, "
            "as MLX's loaders want a quantized matrix to be",
            hint="leave it in float16",
        )


def check_mlx_layout(
    layout: MlxLayout, schemes: Mapping[str, Quantized], shapes: Mapping[str, Shape], *, tied: bool
) -> None:
    """Refuse a choice of schemes that a layout cannot hold.

    Args:
        layout: whose names the tensors get.
        schemes: of the quantized tensors, by canonical name; those that the layout has no place for
            do not count.
        shapes: of all tensors, by canonical name.
        tied: whether the output head is the embedding.

    Raises:
        MlxUnsupportedError: see `check_mlx_scheme`; or Apple's app, which reads one group size and
            one number of bits, would get several or a matrix that is not quantized.
    """
    placed = {name: scheme for name, scheme in schemes.items() if to_mlx(name, layout) is not None}
    for name, scheme in placed.items():
        check_mlx_scheme(name, scheme, shapes[name])
    if layout == "apple_app" and placed:
        _check_uniform(placed, shapes, tied=tied)


def _check_uniform(
    schemes: Mapping[str, Quantized], shapes: Mapping[str, Shape], *, tied: bool
) -> None:
    first_name, first = next(iter(schemes.items()))
    assert isinstance(first, Affine), "checked before"
    for name, shape in shapes.items():
        if role_of(name, shape) == "other" or to_mlx(name, "apple_app") is None:
            continue
        if name == LM_HEAD and tied:
            continue
        scheme = schemes.get(name)
        if scheme is None:
            raise MlxUnsupportedError(
                f"{name}: is not quantized, but {first_name} is",
                hint="in Apple's app every matrix is quantized, or none",
            )
        assert isinstance(scheme, Affine), "checked before"
        if (scheme.bits, scheme.block_size) != (first.bits, first.block_size):
            raise MlxUnsupportedError(
                f"{name}: {describe(scheme)}, but {first_name} is {describe(first)}",
                hint="Apple's app reads one group size and one number of bits for all; "
                "the mlx-vlm layout may mix them",
            )
