"""`genai_config.json`: how onnxruntime-genai 0.18 runs a bundle's graphs.

It knows no FastVLM. `gemma3` is the borrowed type: a tower, an embedding that takes its rows, and a
decoder with plain positions. Images are preprocessed by the caller, who hands `input_ids` (the
image token once for each of an image's tokens), `pixel_values` and `num_image_tokens`, the number
for all images, to `Generator.set_inputs`. Without an image he hands `input_ids` alone.
"""

import json
from collections.abc import Mapping, Sequence

from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.plan_variants import onnx_genai_graphs
from reference.config import parse_config

GENAI_CONFIG = "genai_config.json"
MODEL_TYPE = "gemma3"


def genai_config(
    config: Mapping[str, object],
    generation: Mapping[str, object],
    contract: InputContract,
    *,
    variant: str,
) -> dict[str, object]:
    """The content of the file.

    Args:
        config: the bundle's `config.json`.
        generation: its `generation_config.json`.
        contract: what the bundle expects.
        variant: of the target onnx, which the file names; another one is had by changing the three
            file names, as `onnxruntime_genai.Config.overlay` does.
    """
    text = parse_config(config, source="the bundle's config.json").text
    vision, embedding, decoder = (f"onnx/{graph}.onnx" for graph in onnx_genai_graphs(variant))
    ended_by = generation["eos_token_id"]
    assert isinstance(ended_by, Sequence)
    padding = generation.get("pad_token_id", ended_by[0])
    model = {
        "type": MODEL_TYPE,
        "bos_token_id": generation.get("bos_token_id", padding),
        "eos_token_id": ended_by,
        "pad_token_id": padding,
        "image_token_id": config["image_token_index"],
        "context_length": contract.context_length,
        "vocab_size": text.vocab_size,
        "vision": {
            "filename": vision,
            **_ports(["pixel_values"], ["image_features"]),
        },
        "embedding": {
            "filename": embedding,
            **_ports(["input_ids", "image_features"], ["inputs_embeds"]),
        },
        "decoder": {
            "filename": decoder,
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            "hidden_size": text.hidden_size,
            "head_size": text.head_dim,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "num_hidden_layers": text.num_hidden_layers,
            "inputs": {
                "inputs_embeds": "inputs_embeds",
                "attention_mask": "attention_mask",
                "position_ids": "position_ids",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
    }
    search = {
        "do_sample": False,
        "max_length": contract.context_length,
        "num_beams": 1,
        "past_present_share_buffer": False,
    }
    return {"model": model, "search": search}


def genai_config_file(files: Mapping[str, bytes], contract: InputContract, variant: str) -> bytes:
    """The file, made from a bundle's other root files."""
    config, generation = (
        json.loads(files[name]) for name in ("config.json", "generation_config.json")
    )
    document = genai_config(config, generation, contract, variant=variant)
    return f"{json.dumps(document, indent=2)}\n".encode()


def _ports(inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Every graph calls them what genai does."""
    return {
        "inputs": {name: name for name in inputs},
        "outputs": {name: name for name in outputs},
    }
