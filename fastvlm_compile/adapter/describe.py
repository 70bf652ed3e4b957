"""What a LoRA fine-tune is, and whether it can be merged, without reading its values."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.adapter.config import load_adapter_config
from fastvlm_compile.adapter.merge import open_adapter
from fastvlm_compile.checkpoint.sizes import size_label
from reference.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MergeSummary:
    """What merging would do."""

    base: str
    """The base's folder."""
    size: str
    """`0.5B`, `1.5B`, `7B` or `other`."""
    num_tensors: int
    """Of the merged checkpoint."""
    adapted: dict[str, int]
    """Weights that matrices change, by the last part of their layers' names."""
    replaced: tuple[str, ...]
    """Canonical names of the tensors that were trained whole."""


@dataclass(frozen=True, kw_only=True)
class AdapterSummary:
    """Everything `checkpoint inspect` tells of a LoRA fine-tune."""

    rank: int
    alpha: float
    scale: float
    """Factor of `B @ A`."""
    trained_on: str
    """As the adapter says."""
    merge: MergeSummary | None
    """None where it cannot be merged."""
    problem: str
    """Why not; empty where it can."""

    @property
    def usable(self) -> bool:
        """It can be merged."""
        return self.merge is not None


def describe_adapter(folder: Path, base: Path | None) -> AdapterSummary:
    """Describe a fine-tune's folder.

    Args:
        folder: holds `adapter_config.json`.
        base: the checkpoint that it belongs on, if it does not name a folder that is here.

    Raises:
        CheckpointError: its `adapter_config.json` cannot be used.
    """
    config = load_adapter_config(folder)
    merge: MergeSummary | None = None
    problem = ""
    try:
        tune = open_adapter(folder, base)
    except UserError as error:
        problem = error.message
    else:
        adapted = Counter(name.removesuffix(".weight").rpartition(".")[2] for name in tune.pairs)
        merge = MergeSummary(
            base=str(tune.base.path),
            size=size_label(tune.config),
            num_tensors=len(tune.base.tensors),
            adapted=dict(sorted(adapted.items())),
            replaced=tuple(sorted(tune.replaced)),
        )
    return AdapterSummary(
        rank=config.rank,
        alpha=config.alpha,
        scale=config.scale,
        trained_on=config.base,
        merge=merge,
        problem=problem,
    )
