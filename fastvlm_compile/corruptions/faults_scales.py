"""Faults of scales, and of MLX's biases beside them: [O, B], a block of weights each."""

from collections.abc import Sequence

import numpy as np

from fastvlm_compile.corruptions.fault import Context, Edit, Kind
from fastvlm_compile.corruptions.stored import StoredTensor


def scale_kinds() -> tuple[Kind, ...]:
    """Of scales."""
    return (
        Kind(name="scale of the neighbouring block", applies=_has_blocks, edit=_neighbour),
        Kind(name="a row's scales shifted by a block", applies=_has_blocks, edit=_row_shifted),
        Kind(name="scale of the neighbouring row", applies=_has_rows, edit=_neighbour_row),
        Kind(name="scales shifted by a row", applies=_has_rows, edit=_rows_shifted),
        Kind(name="scales along the wrong axis", applies=_has_blocks, edit=_transposed),
        Kind(name="scales of another tensor", applies=_has_twins, edit=_of_another),
        Kind(name="stale scales", applies=_has_rows, edit=_stale),
        Kind(name="low bit of a scale flipped", applies=_has_rows, edit=_bit(0)),
        Kind(name="exponent bit of a scale flipped", applies=_has_rows, edit=_bit(-6)),
        Kind(name="sign of a scale flipped", applies=_has_rows, edit=_bit(-1)),
    )


def bias_kinds() -> tuple[Kind, ...]:
    """Of MLX's biases, each of which is -(zero point) times its scale."""
    return (
        Kind(name="zero point off by one", applies=_has_bias, edit=_bias_off_by_one),
        Kind(name="bias of the neighbouring block", applies=_has_bias, edit=_neighbours_bias),
        Kind(name="bias does not match its scale", applies=_has_bias, edit=_scale_alone),
        Kind(name="biases dropped", applies=_has_bias, edit=_no_biases),
    )


def _has_rows(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return len(tensor.scales) > 1


def _has_blocks(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return len(tensor.scales) > 1 and len(tensor.scales[0]) > 1


def _has_bias(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.biases.size > 0


def _has_twins(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    return len(tensor.scales) > 1 and bool(_twins(tensor, others))


def _twins(tensor: StoredTensor, others: Sequence[StoredTensor]) -> list[StoredTensor]:
    return [other for other in others if other.scales.shape == tensor.scales.shape]


def _neighbour(tensor: StoredTensor, context: Context) -> str:
    return _taken_from(tensor.scales, np.roll(tensor.scales, -1, axis=1), tensor, context)


def _neighbour_row(tensor: StoredTensor, context: Context) -> str:
    return _taken_from(tensor.scales, np.roll(tensor.scales, -1, axis=0), tensor, context)


def _taken_from(
    scales: np.ndarray, wrong: np.ndarray, tensor: StoredTensor, context: Context
) -> str:
    row, block = place(np.abs(scales) != np.abs(wrong), context)
    old = scales[row, block]
    scales[row, block] = wrong[row, block]
    _follow(tensor)
    return f"row {row}, block {block}: {old:.4g} -> {wrong[row, block]:.4g}"


def _row_shifted(tensor: StoredTensor, context: Context) -> str:
    shifted = np.roll(tensor.scales, 1, axis=1)
    row, _ = place(shifted != tensor.scales, context)
    tensor.scales[row] = shifted[row]
    _follow(tensor)
    return f"row {row}"


def _rows_shifted(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    return _replace(tensor, np.roll(tensor.scales, 1, axis=0))


def _transposed(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    return _replace(tensor, np.ascontiguousarray(tensor.scales.T).reshape(tensor.scales.shape))


def _of_another(tensor: StoredTensor, context: Context) -> str:
    other = context.random.choice(_twins(tensor, context.others))
    _replace(tensor, other.scales)
    return f"those of {other.label}"


def _stale(tensor: StoredTensor, context: Context) -> str:
    found = [context.stale(name).scales for name in tensor.names]
    rows = np.concatenate([scales.reshape(len(scales), -1) for scales in found])
    rows = rows[tensor.first_row : tensor.first_row + len(tensor.scales)]
    _replace(tensor, rows.astype(tensor.scales.dtype))
    return "those of rounding to nearest"


def _bit(number: int) -> Edit:
    """Flips a bit, counted from the lowest or, if negative, from the sign."""

    def edit(tensor: StoredTensor, context: Context) -> str:
        scales = tensor.scales
        row, block = place(scales != 0, context)
        words = scales.view({2: np.uint16, 4: np.uint32}[scales.itemsize])
        old = scales[row, block]
        words[row, block] ^= words.dtype.type(1 << (number % (8 * scales.itemsize)))
        return f"row {row}, block {block}: {old:.4g} -> {scales[row, block]:.4g}"

    return edit


def _bias_off_by_one(tensor: StoredTensor, context: Context) -> str:
    row, block = place(tensor.scales != 0, context)
    tensor.biases[row, block] += tensor.scales[row, block]
    return f"row {row}, block {block}"


def _neighbours_bias(tensor: StoredTensor, context: Context) -> str:
    axis = 1 if tensor.biases.shape[1] > 1 else 0
    wrong = np.roll(tensor.biases, 1, axis=axis)
    row, block = place(wrong != tensor.biases, context)
    tensor.biases[row, block] = wrong[row, block]
    return f"row {row}, block {block}"


def _scale_alone(tensor: StoredTensor, context: Context) -> str:
    row, block = place(tensor.scales != 0, context)
    tensor.scales[row, block] *= tensor.scales.dtype.type(1.25)
    return f"row {row}, block {block}"


def _no_biases(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    tensor.biases[...] = 0
    return ""


def _replace(tensor: StoredTensor, scales: np.ndarray) -> str:
    tensor.scales[...] = scales
    _follow(tensor)
    return ""


def _follow(tensor: StoredTensor) -> None:
    """The biases of a symmetric scheme that belong to the wrong scales, so that these alone are
    wrong."""
    if tensor.biases.size:
        middle = tensor.biases.dtype.type(-(2 ** (tensor.bits - 1)))
        tensor.biases[...] = tensor.scales * middle


def place(candidates: np.ndarray, context: Context) -> tuple[int, ...]:
    """One of the places that are true; any place if none is."""
    (found,) = np.nonzero(candidates.reshape(-1))
    flat = int(found[context.random.randrange(len(found))]) if len(found) else 0
    return tuple(int(index) for index in np.unravel_index(flat, candidates.shape))
