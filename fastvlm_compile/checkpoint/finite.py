"""Looks for infinities and NaNs in the stored values, block by block."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from fastvlm_compile.progress import Progress
from reference.checkpoint.raw import RawReader
from reference.checkpoint.tensors import Checkpoint

_FLOATS = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def non_finite_tensors(checkpoint: Checkpoint, progress: Progress) -> Iterator[tuple[str, int]]:
    """Canonical name of each tensor with values that are not finite, and how many it has.

    Args:
        checkpoint: all its tensors are read.
        progress: told before each tensor.
    """
    reader = RawReader(checkpoint.path)
    total = len(checkpoint.tensors)
    for index, (name, info) in enumerate(checkpoint.tensors.items()):
        progress(index, total, name)
        dtype = _FLOATS.get(info.dtype)
        if dtype is None:
            continue
        count = sum(
            int(np.count_nonzero(~np.isfinite(np.frombuffer(block, dtype=dtype))))
            for block in reader.blocks(info)
        )
        if count:
            yield name, count
    progress(total, total, "values read")
