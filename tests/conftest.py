"""Fixtures for everybody: a small FastVLM of random weights with realistic statistics."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastvlm_compile.checkpoint.synthesize import synthesize


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """See `worker_groups`."""
    from worker_groups import GroupScheduling

    return GroupScheduling(config, log)


NUM_REGULAR_TOKENS = 320
"""256 bytes and 64 merges; the special tokens follow, `<image>` is 323."""


def make_tiny_config() -> dict[str, object]:
    """`config.json`, in Apple's layout, of a FastVLM that runs in milliseconds.

    All five stages, both kinds of blocks, grouped-query attention; 128x128 pixels, so 2x2 tokens.
    """
    return {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "bos_token_id": NUM_REGULAR_TOKENS,
        "eos_token_id": NUM_REGULAR_TOKENS + 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "image_aspect_ratio": "pad",
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "mm_hidden_size": 256,
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_config": {
            "depths": [1, 1, 2, 1, 1],
            "widths": [8, 16, 32, 64, 128],
            "mlp_ratio": 2,
            "head_dim": 32,
            "projection_dim": 16,
        },
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "mobileclip_l_128",
        "model_type": "llava_qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 256,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float16",
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": 336,
    }


@pytest.fixture
def tiny_config() -> dict[str, object]:
    """A fresh raw config that a test may change; see `make_tiny_config`."""
    return make_tiny_config()


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of `tiny_config` in Apple's layout, seed 0. Do not write into it."""
    directory = tmp_path_factory.mktemp("random_checkpoint")
    synthesize(make_tiny_config(), 0, "apple", directory)
    return directory


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny checkpoint of its own for a test that wants to damage or vary it.

    `make_checkpoint(name="a", layout="apple", seed=0, **changes)` changes keys of the config.
    """

    def make(
        *, name: str = "checkpoint", layout: str = "apple", seed: int = 0, **changes: object
    ) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        assert layout in ("apple", "transformers")
        synthesize(
            make_tiny_config() | changes,
            seed,
            "apple" if layout == "apple" else "transformers",
            directory,
        )
        return directory

    return make
