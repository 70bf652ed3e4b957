"""The tiny FastVLM's `config.json`: every part of the released architecture, scaled down."""

from collections.abc import Mapping
from typing import Final

IMAGE_SIZE: Final = 256
WIDTHS: Final = (16, 32, 64, 128, 256)
DEPTHS: Final = (1, 2, 2, 1, 1)

# Rows beyond the tokenizer, as the released models have: none of them may ever be chosen.
VOCAB_MULTIPLE: Final = 128


def config_json(*, num_tokens: int, token_ids: Mapping[str, int]) -> dict[str, object]:
    """The content of `config.json` in Apple's layout.

    Args:
        num_tokens: ids the tokenizer knows.
        token_ids: ids of the special tokens and of `<image>`.
    """
    rows = -(-num_tokens // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": token_ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": 128,
        "image_aspect_ratio": "pad",
        "image_token_index": token_ids["<image>"],
        "initializer_range": 0.02,
        "intermediate_size": 384,
        "max_position_embeddings": 2048,
        "max_window_layers": 4,
        "mm_hidden_size": 2 * WIDTHS[-1],
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_config": {
            "depths": list(DEPTHS),
            "widths": list(WIDTHS),
            "mlp_ratio": 4,
            "head_dim": 32,
            "projection_dim": 64,
        },
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"mobileclip_l_{IMAGE_SIZE}",
        "model_type": "llava_qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 2048,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float16",
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": rows,
    }
