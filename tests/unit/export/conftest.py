"""One export of the shared random checkpoint per session, for the tests that only look at it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from export_helpers import Graph, export_all

from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.fastvlm import FastVLM
from reference.loading import load


@pytest.fixture(scope="session")
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(random_checkpoint)


@pytest.fixture(scope="session")
def reference(random_checkpoint: Path) -> FastVLM:
    return load(random_checkpoint)


@pytest.fixture(scope="session")
def exported(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `export_all`. Do not write into it."""
    return export_all(random_checkpoint, tmp_path_factory.mktemp("export") / "first")


@pytest.fixture(scope="session")
def decoder(exported: Path) -> Graph:
    return Graph.open(exported / "decoder_model_merged.onnx")


@pytest.fixture
def random_tensor() -> Callable[..., torch.Tensor]:
    """`random_tensor(2, 5, 64)`: normal values, the same ones in every run."""
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator)
