"""One fault of a saved file, and a seeded choice among many."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from fastvlm_compile.corruptions.stored import Draft, StoredTensor
from fastvlm_compile.quantize.tensor import QuantizedTensor

Stale = Callable[[str], QuantizedTensor]
"""Another quantization of a tensor, by its canonical name, in the same scheme."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a fault may look at besides the tensor that it damages.

    Attributes:
        random: seeded for this fault alone.
        others: the file's further tensors.
        stale: see `Stale`.
    """

    random: Random
    others: Sequence[StoredTensor]
    stale: Stale


Applies = Callable[[StoredTensor, Sequence[StoredTensor]], bool]
"""Whether a tensor has what is damaged, given the file's others."""

Edit = Callable[[StoredTensor, Context], str]
"""Damages a tensor; says where, in a few words, empty where the kind says it all."""

Change = Callable[[Draft, Context], str]
"""Damages what refers to the arrays, or several of them."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault and how to make it.

    Attributes:
        kind: what is done, as the table groups it.
        file: that is damaged, by its name in the folder.
        where: the tensor's label, or the place.
        change: does it to a draft of the file.
        of_weights: whether the decoder sees all that is changed, so that equal numbers prove that
            nothing has changed.
    """

    kind: str
    file: str
    where: str
    change: Change
    of_weights: bool = True

    @property
    def name(self) -> str:
        """`decoder.mlpackage: table reversed, layers_0_mlp_up_proj_weight_to_fp16`."""
        return f"{self.file}: {self.kind}, {self.where}"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A fault that a tensor's arrays can have.

    Attributes:
        name: as the table calls it.
        applies: see `Applies`.
        edit: damages it.
    """

    name: str
    applies: Applies
    edit: Edit


def array_faults(kinds: Iterable[Kind], file: str, draft: Draft) -> Iterable[Fault]:
    """Every kind at every tensor of a file that it applies to."""
    for kind in kinds:
        for label, tensor in draft.tensors.items():
            if kind.applies(tensor, others(draft, label)):
                yield Fault(
                    kind=kind.name, file=file, where=label, change=_at_tensor(label, kind.edit)
                )


def others(draft: Draft, label: str) -> tuple[StoredTensor, ...]:
    """All tensors of a file but one."""
    return tuple(each for name, each in draft.tensors.items() if name != label)


def _at_tensor(label: str, edit: Edit) -> Change:
    def change(draft: Draft, context: Context) -> str:
        return edit(draft.tensors[label], context)

    return change


def sampled(faults: Iterable[Fault], *, per_kind: int, limit: int, seed: int) -> tuple[Fault, ...]:
    """At most `per_kind` of each kind and file; then, with a limit, so many of them, evenly.

    Args:
        faults: all.
        per_kind: of each kind and file.
        limit: in all; 0 for no limit.
        seed: chooses them.
    """
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.file, fault.kind), []).append(fault)
    random = Random(seed)
    kept = [
        fault
        for group in groups.values()
        for fault in random.sample(group, min(per_kind, len(group)))
    ]
    if not limit or len(kept) <= limit:
        return tuple(kept)
    return tuple(kept[place * len(kept) // limit] for place in range(limit))
