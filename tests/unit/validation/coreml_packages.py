"""Packages of the small random model, and executors that are wrong in one way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_compile.progress import silent
from fastvlm_compile.stages.coreml import CoreMLVisionConfig, vision
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
    decoder,
    embedding,
    projector,
)
from validation.runtimes.core_ml_executor import Precision, WholeModel


def export_packages(
    weights: Path, root: Path, precision: Precision, size: int, further: tuple[int, ...] = ()
) -> dict[str, Path]:
    """The directories of the four stages by role."""
    inputs = {"weights": weights}
    folders = {name: root / name for name in ("vision", "projector", "embedding", "decoder")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    tower = CoreMLVisionConfig(image_size=size, precision=precision, image_sizes=further)
    vision(tower, inputs, folders["vision"], silent)
    rows = CoreMLProjectorConfig(image_size=size, precision=precision, image_sizes=further)
    projector(rows, inputs, folders["projector"], silent)
    table = CoreMLEmbeddingConfig(precision=precision)
    embedding(table, inputs, folders["embedding"], silent)
    language = CoreMLDecoderConfig(
        context_length=256, prefill_chunk=16, max_chunk_mb=10, precision=precision
    )
    decoder(language, inputs, folders["decoder"], silent)
    return folders


@dataclass(frozen=True, kw_only=True)
class Spoiled:
    """A whole model whose parts can be replaced; everything else is passed on."""

    model: WholeModel
    project: Callable[[np.ndarray], np.ndarray]
    logits_after: Callable[[Sequence[np.ndarray]], np.ndarray]

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)
