"""A plain Qwen2 checkpoint as a GGUF file, quantized by llama.cpp itself.

    benchmarks/.venv-peers/bin/python -m benchmarks.peer_gguf --checkpoint DIR --out FILE.gguf

Tensors are float16 where they are matrices, as llama.cpp's own converter writes them, then Q4_0 by
its quantizer at its defaults, which keeps more bits of a head that is also the embedding. There is
no tokenizer in the file: token ids are all that a contestant is given.
"""

import argparse
import ctypes
import json
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from safetensors import safe_open


def main() -> None:
    """Write and quantize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    half = arguments.out.with_suffix(".f16.gguf")
    write_half(arguments.checkpoint, half)
    quantize(half, arguments.out)
    half.unlink()


def write_half(checkpoint: Path, out: Path) -> None:
    """The checkpoint in GGUF's names and layout.

    Raises:
        KeyError: a tensor has no name there.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    arch = gguf.MODEL_ARCH.QWEN2
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if renamed is None:
                    raise KeyError(name)
                tensor = file.get_tensor(name)
                writer.add_tensor(
                    renamed, tensor.astype(np.float16 if tensor.ndim == 2 else np.float32)
                )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(half: Path, out: Path) -> None:
    """Q4_0 at the quantizer's defaults.

    Raises:
        RuntimeError: it refuses.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.nthread = 2
    status = llama_cpp.llama_model_quantize(
        str(half).encode(), str(out).encode(), ctypes.byref(params)
    )
    if status != 0:
        raise RuntimeError(f"llama_model_quantize gave {status}")


if __name__ == "__main__":
    main()
