"""One export of one random checkpoint per session and form. Do not write into them."""

import json
from pathlib import Path

import pytest
from coreml_language_helpers import export

from fastvlm_compile.checkpoint.synthesize import synthesize
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.fastvlm import FastVLM
from reference.loading import load


@pytest.fixture(scope="session")
def weights(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared tiny model with a vocabulary that is larger than a layer, so that it splits."""
    config = json.loads((random_checkpoint / "config.json").read_text(encoding="utf-8"))
    directory = tmp_path_factory.mktemp("wide_checkpoint")
    synthesize(config | {"vocab_size": 800}, 0, "apple", directory)
    return directory


@pytest.fixture(scope="session")
def checkpoint(weights: Path) -> Checkpoint:
    return open_checkpoint(weights)


@pytest.fixture(scope="session")
def reference(weights: Path) -> FastVLM:
    return load(weights)


@pytest.fixture(scope="session")
def float32(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 sibling in one package, its cache passed in and out."""
    return export(weights, tmp_path_factory.mktemp("decoder") / "float32", precision="float32")


@pytest.fixture(scope="session")
def float16(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it ships, in one package, the cache its state."""
    return export(weights, tmp_path_factory.mktemp("decoder") / "float16", precision="float16")


@pytest.fixture(scope="session")
def pieces(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 sibling in four packages: a layer, a layer, and the head in two."""
    out = tmp_path_factory.mktemp("decoder") / "pieces"
    return export(weights, out, max_chunk_mb=0.062, precision="float32")
