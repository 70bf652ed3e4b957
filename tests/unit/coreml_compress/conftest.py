"""One export per precision and one set of quantized tensors per session. Do not change them."""

import json
from pathlib import Path

import pytest
from compress_helpers import (
    compress_all,
    export_decoder,
    export_packages,
    schemes_in_turn,
    write_quantized,
)

from fastvlm_compile.checkpoint.synthesize import synthesize
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.fastvlm import FastVLM
from reference.loading import build


@pytest.fixture(scope="session")
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(random_checkpoint)


@pytest.fixture(scope="session")
def float16(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_packages(random_checkpoint, tmp_path_factory.mktemp("c") / "16", "float16")


@pytest.fixture(scope="session")
def float32(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_packages(random_checkpoint, tmp_path_factory.mktemp("c") / "32", "float32")


@pytest.fixture(scope="session")
def quantized(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> QuantizedWeights:
    """Every tensor that may be, in all schemes by turns."""
    folder = tmp_path_factory.mktemp("quantized") / "tensors"
    return write_quantized(checkpoint, schemes_in_turn(checkpoint), folder)


@pytest.fixture(scope="session")
def reference(checkpoint: Checkpoint, quantized: QuantizedWeights) -> FastVLM:
    """The model that the compressed packages have to be."""
    return build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized))


@pytest.fixture(scope="session")
def compressed16(
    float16: Path, quantized: QuantizedWeights, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return compress_all(float16, quantized, tmp_path_factory.mktemp("c") / "16")


@pytest.fixture(scope="session")
def compressed32(
    float32: Path, quantized: QuantizedWeights, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return compress_all(float32, quantized, tmp_path_factory.mktemp("c") / "32")


@pytest.fixture(scope="session")
def wide(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """One layer, and a vocabulary that is larger than it."""
    config = json.loads((random_checkpoint / "config.json").read_text(encoding="utf-8"))
    directory = tmp_path_factory.mktemp("wide")
    synthesize(config | {"vocab_size": 800, "num_hidden_layers": 1}, 0, "apple", directory)
    return open_checkpoint(directory)


@pytest.fixture(scope="session")
def pieces(wide: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder of `wide` in three packages: the layer, and the head in two."""
    out = tmp_path_factory.mktemp("c") / "pieces"
    return export_decoder(wide.path, out, "float32", max_chunk_mb=0.062)
