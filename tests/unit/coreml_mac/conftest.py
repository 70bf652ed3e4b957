"""One export of the whole small model per session and form. Do not write into them."""

import sys
from pathlib import Path
from typing import Literal

import pytest

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
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.core_ml_paths import packages_in_stages

Precision = Literal["float16", "float32"]


def _export(weights: Path, out: Path, precision: Precision) -> Packages:
    inputs = {"weights": weights}
    stages = {name: out / name for name in ("vision", "projector", "embedding", "decoder")}
    for folder in stages.values():
        folder.mkdir()
    vision(
        CoreMLVisionConfig(image_size=128, precision=precision), inputs, stages["vision"], silent
    )
    projecting = CoreMLProjectorConfig(image_size=128, precision=precision)
    projector(projecting, inputs, stages["projector"], silent)
    embedding(CoreMLEmbeddingConfig(precision=precision), inputs, stages["embedding"], silent)
    decoding = CoreMLDecoderConfig(
        context_length=250, prefill_chunk=8, max_chunk_mb=1, precision=precision
    )
    decoder(decoding, inputs, stages["decoder"], silent)
    paths = packages_in_stages(stages)
    return Packages(vision=paths.vision, whole=paths, precision=precision)


@pytest.fixture(scope="session")
def packages(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """As it ships: float16, the decoder's cache its state."""
    return _export(random_checkpoint, tmp_path_factory.mktemp("mac_float16"), "float16")


@pytest.fixture(scope="session")
def siblings(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The float32 siblings, their cache passed in and out."""
    return _export(random_checkpoint, tmp_path_factory.mktemp("mac_float32"), "float32")


@pytest.fixture
def tower(tmp_path: Path) -> Packages:
    """A tower that no stand-in opens."""
    return Packages(vision=tmp_path / "none.mlpackage", whole=None, precision="float16")


@pytest.fixture(autouse=True)
def _stand_ins_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a unit gets our `sys.path`, and must find the factories there."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
