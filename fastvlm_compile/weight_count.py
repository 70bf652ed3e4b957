"""How many numbers of a checkpoint a target holds, for bits per weight."""

import math
from typing import TYPE_CHECKING

from fastvlm_compile.recipe import Targets

if TYPE_CHECKING:
    from reference.checkpoint.tensors import Checkpoint


def num_weights(checkpoint: "Checkpoint", targets: Targets, target: str) -> int:
    """Numbers in the tensors that FastVLM computes with, a shared one counted once.

    Args:
        checkpoint: opened.
        targets: of the recipe: Core ML without `language` holds the vision tower alone.
        target: whose files hold them.
    """
    from reference.checkpoint.names import HEAD_PROJECTION, LM_HEAD, VISION_PREFIX

    tower_alone = targets.coreml is not None and targets.coreml.language is None
    prefix = VISION_PREFIX if target == "coreml" and tower_alone else ""
    unused = {HEAD_PROJECTION} | ({LM_HEAD} if checkpoint.tied else set())
    return sum(
        math.prod(info.shape)
        for name, info in checkpoint.tensors.items()
        if name.startswith(prefix)
        and name not in unused
        and not name.endswith(".num_batches_tracked")
    )
