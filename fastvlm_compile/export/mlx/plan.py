"""Every tensor of an MLX folder before any is read: name, dtype, shape, and where it comes from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from fastvlm_compile.checkpoint.safetensors_writer import TensorSpec
from fastvlm_compile.export.mlx.names import MlxLayout, module_of, to_mlx
from fastvlm_compile.quantize.scheme import Affine, Shape
from reference.checkpoint.names import LM_HEAD, VISION_PREFIX

Part = Literal["values", "weight", "scales", "biases"]
FloatDtype = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One tensor of the folder.

    Attributes:
        spec: its name, dtype and shape there.
        name: canonical, of the tensor that it is made from.
        part: `values` of a float tensor, or which array of a quantized one.
    """

    spec: TensorSpec
    name: str
    part: Part


def plan_tensors(
    shapes: Mapping[str, Shape],
    schemes: Mapping[str, Affine],
    *,
    layout: MlxLayout,
    tied: bool,
    dtype: FloatDtype,
    tower_dtype: FloatDtype | None = None,
) -> tuple[Placed, ...]:
    """What a layout holds, in the order of `shapes`.

    Args:
        shapes: of all tensors that the config promises, by canonical name.
        schemes: of the quantized ones; `check_mlx_layout` has passed them.
        layout: whose names they get, and which of them have a place.
        tied: whether the output head is the embedding, and is left out.
        dtype: of what is not quantized.
        tower_dtype: of the vision tower alone; None for `dtype`.
    """
    planned: list[Placed] = []
    for name, shape in shapes.items():
        target = to_mlx(name, layout)
        if target is None or (tied and name == LM_HEAD):
            continue
        if name in schemes:
            planned.extend(_quantized(name, target, shape, schemes[name]))
        else:
            kept = (tower_dtype or dtype) if name.startswith(VISION_PREFIX) else dtype
            spec = TensorSpec(name=target, dtype=kept, shape=mlx_shape(shape))
            planned.append(Placed(spec=spec, name=name, part="values"))
    return tuple(planned)


def mlx_shape(shape: Shape) -> Shape:
    """A shape with the channels last: convolutions OHWI, layer scales [1, 1, C]."""
    if len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    if len(shape) == 3:
        return (shape[1], shape[2], shape[0])
    return shape


def bits_per_weight(planned: Iterable[Placed], shapes: Mapping[str, Shape]) -> float:
    """Bits that the folder stores for each weight of its tensors; scales, biases, norms count."""
    tensors = tuple(planned)
    size_bytes = sum(placed.spec.size_bytes for placed in tensors)
    num_weights = sum(prod(shapes[name]) for name in {placed.name for placed in tensors})
    return 8 * size_bytes / num_weights


def _quantized(name: str, target: str, shape: Shape, scheme: Affine) -> tuple[Placed, ...]:
    rows, columns = shape
    module = module_of(target)
    words, groups = (rows, columns * scheme.bits // 32), (rows, scheme.num_blocks(shape))
    return (
        Placed(spec=TensorSpec(name=target, dtype="uint32", shape=words), name=name, part="weight"),
        *(
            Placed(
                spec=TensorSpec(name=f"{module}.{part}", dtype="float16", shape=groups),
                name=name,
                part=part,
            )
            for part in ("scales", "biases")
        ),
    )
