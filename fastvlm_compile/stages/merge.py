"""The stage that makes one checkpoint of a LoRA fine-tune and its base."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Nothing to choose: the adapter says how it is merged."""


def merge(config: MergeConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Write the merged checkpoint.

    Args:
        config: empty.
        inputs: `adapter`, the fine-tune's folder; `base`, the checkpoint it was trained on.
        out: an empty directory.
        progress: told of each tensor.

    Raises:
        CheckpointError: the two do not belong together; names the tensor.
    """
    from fastvlm_compile.adapter.fine_tune import open_fine_tune
    from fastvlm_compile.adapter.merge import write_merged

    del config
    write_merged(open_fine_tune(inputs["adapter"], inputs["base"]), out, progress)
