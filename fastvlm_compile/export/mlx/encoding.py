"""A `QuantizedTensor` as MLX's three arrays, and back.

MLX computes `weight = scale * code + bias` (`mlx.core.dequantize`), we `scale * (code - zero
point)`, so the bias is `-zero point * scale`. Of a symmetric scheme that is a power of two times
the scale, which float16 holds exactly; of an asymmetric one it seldom is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fastvlm_compile.export.mlx.limits import MlxUnsupportedError, check_mlx_scheme
from fastvlm_compile.quantize.packing import pack, unpack
from fastvlm_compile.quantize.scheme import Affine, code_range, symmetric_zero_point
from fastvlm_compile.quantize.tensor import Codes, Halves, QuantizedTensor, nothing
from reference.errors import UserError

Words = npt.NDArray[np.uint32]


class MlxFileError(UserError):
    """An MLX folder is damaged, or holds what no `QuantizedTensor` can."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MlxArrays:
    """One quantized matrix [O, I] as MLX stores it.

    Attributes:
        weight: [O, I * bits / 32], codes packed low bits first along the input channels.
        scales: [O, I / group size].
        biases: like `scales`, what code 0 stands for.
    """

    weight: Words
    scales: Halves
    biases: Halves


def encode(name: str, tensor: QuantizedTensor) -> MlxArrays:
    """The arrays of a tensor; `name` is for messages.

    Raises:
        MlxUnsupportedError: MLX cannot hold the scheme, or a bias is not exact in float16.
    """
    check_mlx_scheme(name, tensor.scheme, tensor.shape)
    assert isinstance(tensor.scheme, Affine), "checked"
    # A row has a multiple of 32 codes: it ends at the end of a word.
    packed = pack(tensor.codes, tensor.scheme.bits)
    weight = packed.view("<u4").reshape(tensor.shape[0], -1)
    return MlxArrays(weight=weight, scales=tensor.scales, biases=_biases(name, tensor))


def decode(
    name: str, arrays: MlxArrays, *, bits: Literal[4, 8], group_size: int
) -> QuantizedTensor:
    """The tensor that arrays hold; `name` is for messages.

    A block whose scale is 0 does not tell its zero point: it comes back as 0, or, where all others
    have the symmetric one, as that. It counts for nothing, as all its weights are 0.

    Raises:
        MlxFileError: shapes do not belong together, or a bias is no whole multiple of its scale.
    """
    rows, num_words = arrays.weight.shape
    columns = num_words * 32 // bits
    expected = (rows, columns // group_size)
    if columns % group_size or arrays.scales.shape != expected or arrays.biases.shape != expected:
        raise MlxFileError(
            f"{name}: scales {arrays.scales.shape} and biases {arrays.biases.shape} for "
            f"{columns} input channels in groups of {group_size}, expected {expected}"
        )
    zero_points, symmetric = _zero_points(name, arrays, bits)
    packed = np.ascontiguousarray(arrays.weight).view(np.uint8).reshape(-1)
    return QuantizedTensor(
        scheme=Affine(bits=bits, block_size=group_size, symmetric=symmetric),
        codes=unpack(packed, bits, rows * columns).reshape(rows, columns),
        scales=arrays.scales,
        zero_points=nothing(np.uint8) if symmetric else zero_points,  # type: ignore[arg-type]
        tables=nothing(np.float16),  # type: ignore[arg-type]
    )


def _biases(name: str, tensor: QuantizedTensor) -> Halves:
    exact = -tensor.effective_zero_points().astype(np.float64) * tensor.scales.astype(np.float64)
    with np.errstate(over="ignore"):
        biases = exact.astype(np.float16)
    wrong = ~(np.isfinite(biases) & (biases.astype(np.float64) == exact))
    if not wrong.any():
        return biases
    row, block = (int(index) for index in np.argwhere(wrong)[0])
    what = (
        f"{name}: channel {row}, block {block}: scale {tensor.scales[row, block]!s} makes a bias "
    )
    assert isinstance(tensor.scheme, Affine), "checked"
    if tensor.scheme.symmetric:
        raise MlxUnsupportedError(
            f"{what}of {exact[row, block]:g}, beyond float16", hint="leave it in float16"
        )
    raise MlxUnsupportedError(
        f"{what}of {exact[row, block]:.9g}, which float16 does not hold exactly",
        hint="MLX needs symmetric quantization to keep the same numbers",
    )


def _zero_points(name: str, arrays: MlxArrays, bits: int) -> tuple[Codes, bool]:
    scales, biases = arrays.scales.astype(np.float64), arrays.biases.astype(np.float64)
    zero = scales == 0
    quotients = -biases / np.where(zero, 1, scales)
    # The quotient of an exact product is exact, so a whole number is one without tolerance.
    whole = (quotients == np.floor(quotients)) & (quotients >= 0) & (quotients <= code_range(bits))
    wrong = ~(whole & (~zero | (biases == 0)))
    if wrong.any():
        row, block = (int(index) for index in np.argwhere(wrong)[0])
        raise MlxFileError(
            f"{name}: channel {row}, block {block}: bias {arrays.biases[row, block]!s} is no zero "
            f"point from 0 to {code_range(bits)} times scale {arrays.scales[row, block]!s}",
            hint="only what this program wrote can be read as its integers",
        )
    middle = symmetric_zero_point(bits)
    symmetric = bool(np.all((quotients == middle) | zero))
    return quotients.astype(np.uint8), symmetric
