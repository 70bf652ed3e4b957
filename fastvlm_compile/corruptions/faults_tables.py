"""Faults of palettes: tables [G, K] whose codes stay as they are."""

from collections.abc import Sequence

import numpy as np

from fastvlm_compile.corruptions.fault import Context, Kind
from fastvlm_compile.corruptions.faults_scales import place
from fastvlm_compile.corruptions.stored import StoredTensor


def table_kinds() -> tuple[Kind, ...]:
    """Of tables."""
    return (
        Kind(name="table reversed", applies=_has_tables, edit=_reversed),
        Kind(name="table rolled by one", applies=_has_tables, edit=_rolled),
        Kind(name="two table entries exchanged", applies=_has_tables, edit=_exchanged),
        Kind(name="low bit of a table entry flipped", applies=_has_tables, edit=_bit),
        Kind(name="table of the neighbouring group", applies=_has_groups, edit=_neighbour),
        Kind(name="tables shifted by a group", applies=_has_groups, edit=_groups_shifted),
        Kind(name="tables along the wrong axis", applies=_has_groups, edit=_transposed),
        Kind(name="stale tables", applies=_has_plain_tables, edit=_stale),
    )


def _has_tables(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return tensor.tables.size > 0


def _has_plain_tables(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    """Tables with scales of their own stand once a channel in Core ML."""
    del others
    return tensor.tables.size > 0 and tensor.scales.size == 0


def _has_groups(tensor: StoredTensor, others: Sequence[StoredTensor]) -> bool:
    del others
    return len(tensor.tables) > 1


def _reversed(tensor: StoredTensor, context: Context) -> str:
    group = context.random.randrange(len(tensor.tables))
    tensor.tables[group] = tensor.tables[group, ::-1].copy()
    return f"group {group}"


def _rolled(tensor: StoredTensor, context: Context) -> str:
    group = context.random.randrange(len(tensor.tables))
    tensor.tables[group] = np.roll(tensor.tables[group], 1)
    return f"group {group}"


def _exchanged(tensor: StoredTensor, context: Context) -> str:
    tables = tensor.tables
    group, entry = place(tables[:, 1:] != tables[:, :-1], context)
    tables[group, [entry, entry + 1]] = tables[group, [entry + 1, entry]]
    return f"group {group}, entries {entry} and {entry + 1}"


def _bit(tensor: StoredTensor, context: Context) -> str:
    tables = tensor.tables
    group, entry = place(tables != 0, context)
    words = tables.view({2: np.uint16, 4: np.uint32}[tables.itemsize])
    words[group, entry] ^= words.dtype.type(1)
    return f"group {group}, entry {entry}"


def _neighbour(tensor: StoredTensor, context: Context) -> str:
    group = context.random.randrange(len(tensor.tables))
    tensor.tables[group] = tensor.tables[(group + 1) % len(tensor.tables)].copy()
    return f"group {group}"


def _groups_shifted(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    tensor.tables[...] = np.roll(tensor.tables, 1, axis=0)
    return ""


def _transposed(tensor: StoredTensor, context: Context) -> str:  # noqa: ARG001
    tables = tensor.tables
    tables[...] = np.ascontiguousarray(tables.T).reshape(tables.shape)
    return ""


def _stale(tensor: StoredTensor, context: Context) -> str:
    (name,) = tensor.names  # palettes are never joined
    stale = context.stale(name)
    first = tensor.first_row * len(stale.tables) // stale.shape[0]
    tensor.tables[...] = stale.tables[first : first + len(tensor.tables)]
    return "those of evenly spaced values"
