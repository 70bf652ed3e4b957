"""Faults of codes and of zero points, which are packed alike."""

from collections.abc import Sequence

import numpy as np

from fastvlm_compile.corruptions.fault import Context, Kind
from fastvlm_compile.corruptions.faults_scales import place
from fastvlm_compile.corruptions.stored import Bytes, StoredTensor, repack, unpacked


def code_kinds() -> tuple[Kind, ...]:
    """Of codes."""
    return (
        Kind(name="nibbles exchanged", applies=_has_nibbles, edit=_high_first),
        Kind(
            name="packed high bits first",
            applies=_has_few_bits,
            edit=_high_first,
        ),
        Kind(name="one code off by one", applies=_always, edit=_one),
        Kind(name="all codes off by one", applies=_always, edit=_all),
        Kind(name="codes shifted by one", applies=_always, edit=_shifted),
        Kind(name="codes along the wrong axis", applies=_always, edit=_transposed),
        Kind(name="codes of another tensor", applies=_has_twins, edit=_of_another),
    )


def zero_point_kinds() -> tuple[Kind, ...]:
    """Of stored zero points."""
    return (
        Kind(name="zero point off by one", applies=_has_zero_points, edit=_zero_point),
        Kind(name="zero points shifted by a block", applies=_has_zero_points, edit=_zero_points),
        Kind(name="zero points dropped", applies=_has_zero_points, edit=_middle),
    )


def _always(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.codes.size > 0


def _has_nibbles(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.bits == 4


def _has_few_bits(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.bits in (1, 2, 3, 6)


def _has_zero_points(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.zero_points.size > 0


def _has_twins(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    return bool(_twins(tensor, others))


def _twins(tensor: StoredTensor, others: Sequence[StoredTensor]) -> list[StoredTensor]:
    size = (tensor.bits, tensor.codes.size)
    return [other for other in others if (other.bits, other.codes.size) == size]


def _high_first(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    codes = unpacked(tensor.codes, tensor.bits)
    single = np.unpackbits(codes[:, None], axis=1)[:, 8 - tensor.bits :]
    tensor.codes[...] = np.packbits(single.reshape(-1))
    return ""


def _one(tensor: StoredTensor, context: Context) -> str:
    return _one_off(tensor.codes, tensor.bits, context)


def _all(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    top = 2**tensor.bits - 1
    codes = unpacked(tensor.codes, tensor.bits)
    repack(tensor.codes, np.minimum(codes, top - 1) + np.uint8(1), tensor.bits)
    return "one higher, the highest stays"


def _shifted(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    repack(tensor.codes, np.roll(unpacked(tensor.codes, tensor.bits), 1), tensor.bits)
    return ""


def _transposed(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    """As written by one who walks down the columns."""
    codes = unpacked(tensor.codes, tensor.bits)
    rows = max(len(tensor.scales), len(tensor.tables), 2)
    whole = codes.size // rows * rows
    codes[:whole] = codes[:whole].reshape(rows, -1).T.reshape(-1)
    repack(tensor.codes, codes, tensor.bits)
    return ""


def _of_another(tensor: StoredTensor, context: Context) -> str:
    other = context.random.choice(_twins(tensor, context.others))
    tensor.codes[...] = other.codes
    return f"those of {other.label}"


def _zero_point(tensor: StoredTensor, context: Context) -> str:
    return _one_off(tensor.zero_points, tensor.bits, context)


def _zero_points(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    raw = tensor.zero_points
    repack(raw, np.roll(unpacked(raw, tensor.bits), 1), tensor.bits)
    return ""


def _middle(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    raw = tensor.zero_points
    repack(raw, np.full_like(unpacked(raw, tensor.bits), 2 ** (tensor.bits - 1)), tensor.bits)
    return "all of them the middle code"


def _one_off(raw: Bytes, bits: int, context: Context) -> str:
    codes = unpacked(raw, bits)
    (at,) = place(np.ones(codes.size, dtype=bool), context)
    old = int(codes[at])
    codes[at] = old + 1 if old < 2**bits - 1 else old - 1
    repack(raw, codes, bits)
    return f"number {at}: {old} -> {codes[at]}"
