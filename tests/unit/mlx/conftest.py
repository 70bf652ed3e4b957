"""A small checkpoint whose every matrix MLX can quantize in groups of 64, and its reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlx_helpers import all_in_app, quantize, symmetric

from fastvlm_compile.checkpoint.synthesize import synthesize
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import read_config_json


@pytest.fixture(scope="session")
def checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("mlx_checkpoint")
    config = read_config_json(random_checkpoint) | {
        "intermediate_size": 128,
        "image_token_index": 323,
    }
    synthesize(config, 0, "apple", folder)
    return open_checkpoint(folder)


@pytest.fixture(scope="session")
def quantized(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], QuantizedWeights]:
    """`quantized(4)`: all matrices of the app in groups of 64."""
    made: dict[int, QuantizedWeights] = {}

    def of_bits(bits: int) -> QuantizedWeights:
        if bits not in made:
            folder = tmp_path_factory.mktemp("mlx_quantized") / str(bits)
            made[bits] = quantize(checkpoint, folder, all_in_app(symmetric(bits, 64)))
        return made[bits]

    return of_bits
