"""A FastVLM's language model as the plain Qwen2 checkpoint that other tools read."""

import json
from pathlib import Path

from fastvlm_compile.checkpoint.configs import to_transformers_config
from fastvlm_compile.checkpoint.safetensors_writer import Blocks, TensorSpec
from fastvlm_compile.checkpoint.shards import plan_shards, write_shards
from fastvlm_compile.checkpoint.small_files import write_processor_folder
from fastvlm_compile.progress import silent
from reference.checkpoint.names import LM_HEAD, PROJECTOR_PREFIX, VISION_PREFIX
from reference.checkpoint.raw import RawReader
from reference.checkpoint.tensors import open_checkpoint
from reference.config import read_config_json


def write_plain_qwen2(source: Path, out: Path) -> None:
    """Write `Qwen2ForCausalLM` with the tensors of `source`, bytes unchanged, streamed.

    A head that is the embedding is left out, and the config says so.

    Args:
        source: a checkpoint in either layout.
        out: an empty directory.

    Raises:
        CheckpointError, ConfigError: it is no usable FastVLM.
    """
    checkpoint = open_checkpoint(source)
    left_out = {LM_HEAD} if checkpoint.tied else set()
    tensors = {
        name: info
        for name, info in checkpoint.tensors.items()
        if not name.startswith((VISION_PREFIX, PROJECTOR_PREFIX)) and name not in left_out
    }
    specs = [
        TensorSpec(name=name, dtype=info.dtype, shape=info.shape) for name, info in tensors.items()
    ]
    reader = RawReader(source)

    def blocks(tensor: TensorSpec) -> Blocks:
        return reader.blocks(tensors[tensor.name])

    write_shards(out, plan_shards(specs), blocks, silent)
    write_processor_folder(source, out)
    config = _qwen2_config(source, tied=checkpoint.tied)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _qwen2_config(source: Path, *, tied: bool) -> object:
    raw = read_config_json(source)
    if raw["model_type"] == "llava_qwen2":
        # No image tokens reach a language model on its own: their id does not matter.
        raw = to_transformers_config(raw, source=str(source), tied=tied, image_token_id=0)
    text = raw["text_config"]
    assert isinstance(text, dict)
    return {**text, "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": tied}
