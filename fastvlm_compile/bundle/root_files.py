"""The files that consumers look for at a bundle's root.

transformers.js 4 wants all of them, Apple's app all but the chat template; `config.json` keeps the
keys of Apple's layout, so that `reference.config` reads a bundle as it reads a checkpoint.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastvlm_compile.bundle.chat_template import chat_template
from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.checkpoint.configs import to_apple_config
from fastvlm_compile.errors import BundleError
from fastvlm_compile.processor_config import preprocessor_config, processor_config
from reference.config import parse_config
from reference.prompt import IMAGE_TOKEN
from reference.tokenizer import PromptTokenizer, load_tokenizer

END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

# Copied as they are; what else a tokenizer is made of is written anew.
_COPIED = ("vocab.json", "merges.txt")
_GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
# What transformers.js calls the graphs' suffixes, fewest bits first.
_DTYPES = {"q4": "_q4", "q8": "_quantized", "fp16": "_fp16", "fp32": ""}
_QUANTIZED = ("q4", "q8")
# They name the machine or the code that trained the model.
_DROPPED = ("_name_or_path", "name_or_path", "auto_map", "transformers_version")


def root_files(
    *,
    raw_config: Mapping[str, object],
    tied: bool,
    tokenizer_dir: Path,
    contract: InputContract,
    paths: Iterable[str],
) -> dict[str, bytes]:
    """Everything at the root but the model card and the manifest.

    Args:
        raw_config: the checkpoint's `config.json`, in either layout.
        tied: whether the output head is the embedding, as the tensors say.
        tokenizer_dir: the checkpoint's tokenizer files (`processor/` of stage `checkpoint`).
        contract: what the bundle expects.
        paths: of the other files in the bundle; ONNX external data is counted among them.

    Returns:
        Name -> content.

    Raises:
        ConfigError, PromptError: the checkpoint's files cannot be used.
        BundleError: the model has no embedding row for `<image>`.
    """
    tokenizer = load_tokenizer(tokenizer_dir).with_special(IMAGE_TOKEN)
    config = _config(raw_config, tied=tied, tokenizer=tokenizer, contract=contract, paths=paths)
    template = chat_template(contract.image_position)
    files = {
        "config.json": _json(config),
        "generation_config.json": _json(_generation_config(config, tokenizer)),
        "preprocessor_config.json": _json(preprocessor_config(contract.image_size)),
        "processor_config.json": _json(processor_config()),
        "tokenizer.json": tokenizer.to_json().encode(),
        "tokenizer_config.json": _json(
            _tokenizer_config(tokenizer_dir, tokenizer, contract, template)
        ),
        "chat_template.jinja": template.encode(),
    }
    for name in _COPIED:
        if (tokenizer_dir / name).is_file():
            files[name] = (tokenizer_dir / name).read_bytes()
    return files


def external_data_chunks(paths: Iterable[str]) -> dict[str, int]:
    """How many files of external data each graph has: `vision_encoder.onnx` -> 1.

    Source: transformers.js looks for `<graph>.onnx_data`, then `_data_1`, and so on.
    """
    chunks: dict[str, int] = {}
    for path in paths:
        if found := re.fullmatch(r"onnx/(.+\.onnx)_data(_\d+)?", path):
            chunks[found[1]] = chunks.get(found[1], 0) + 1
    return dict(sorted(chunks.items()))


def default_dtypes(paths: Iterable[str], *, plain_embedding: bool = False) -> dict[str, str]:
    """Which file of each graph transformers.js takes unless it is told: that of the fewest bits.

    No single `dtype` names the 4-bit model: its vision encoder has 8 bits, so there is no
    `vision_encoder_q4.onnx`. And without any, transformers.js wants float32 in Node and `q8` in a
    browser, whether they are there or not.

    Args:
        paths: of the files in the bundle.
        plain_embedding: leave out quantized embeddings. The WebAssembly that transformers.js takes
            by default has no kernel for them (GatherBlockQuantized; onnxruntime-web 1.31).

    Returns:
        `vision_encoder` -> `q8`, and so on; empty unless all graphs are there.
    """
    there = set(paths)
    found: dict[str, str] = {}
    for graph in _GRAPHS:
        for dtype, suffix in _DTYPES.items():
            if plain_embedding and graph == "embed_tokens" and dtype in _QUANTIZED:
                continue
            if f"onnx/{graph}{suffix}.onnx" in there:
                found[graph] = dtype
                break
    return found if len(found) == len(_GRAPHS) else {}


def _config(
    raw: Mapping[str, object],
    *,
    tied: bool,
    tokenizer: PromptTokenizer,
    contract: InputContract,
    paths: Iterable[str],
) -> dict[str, object]:
    parsed = parse_config(raw, source="config.json")
    config = dict(raw)
    if parsed.layout == "transformers":
        config = to_apple_config(raw, source="config.json", tied=tied)
    image_token_id = tokenizer.token_id(IMAGE_TOKEN)
    if image_token_id is None or image_token_id >= parsed.text.vocab_size:
        raise BundleError(
            f"{IMAGE_TOKEN} would get the id {image_token_id}, but the model has embeddings for "
            f"{parsed.text.vocab_size} ids",
            hint=f"resize the checkpoint's embedding, or give its tokenizer an {IMAGE_TOKEN} token",
        )
    ended_by = parsed.eos_token_ids or _end_of_turn(tokenizer)
    config |= {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "eos_token_id": ended_by[0] if len(ended_by) == 1 else list(ended_by),
        "image_aspect_ratio": contract.fit,
        "image_token_index": image_token_id,
        "mm_vision_tower": f"mobileclip_l_{contract.image_size}",
        "tie_word_embeddings": tied,
        "tokenizer_model_max_length": contract.context_length,
    }
    if for_javascript := _for_javascript(tuple(paths)):
        config["transformers.js_config"] = for_javascript
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    parse_config(kept, source="the bundle's config.json")
    return dict(sorted(kept.items()))


def _for_javascript(paths: Sequence[str]) -> dict[str, object]:
    dtypes, in_wasm = default_dtypes(paths), default_dtypes(paths, plain_embedding=True)
    chunks = external_data_chunks(paths)
    return {
        **({"dtype": dtypes} if dtypes else {}),
        **({"device_config": {"wasm": {"dtype": in_wasm}}} if in_wasm not in ({}, dtypes) else {}),
        **({"use_external_data_format": chunks} if chunks else {}),
    }


def _end_of_turn(tokenizer: PromptTokenizer) -> tuple[int]:
    token_id = tokenizer.token_id(END_OF_TURN)
    if token_id is None:
        raise BundleError(
            f"nothing ends an answer: no eos_token_id in config.json, no {END_OF_TURN} token",
            hint="set eos_token_id in the checkpoint's config.json",
        )
    return (token_id,)


def _generation_config(
    config: Mapping[str, object], tokenizer: PromptTokenizer
) -> dict[str, object]:
    ended_by = config["eos_token_id"]
    padding = tokenizer.token_id(END_OF_TEXT)
    return {
        "do_sample": False,
        "eos_token_id": ended_by if isinstance(ended_by, list) else [ended_by],
        **({} if padding is None else {"bos_token_id": padding, "pad_token_id": padding}),
    }


def _tokenizer_config(
    directory: Path, tokenizer: PromptTokenizer, contract: InputContract, template: str
) -> dict[str, object]:
    path = directory / "tokenizer_config.json"
    # load_tokenizer has read it already, so it is a JSON object.
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = {
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "Qwen2Tokenizer",
        **{key: value for key, value in given.items() if key not in _DROPPED},
        "added_tokens_decoder": {
            str(key): value for key, value in tokenizer.added_tokens().items()
        },
        "chat_template": template,
        "model_max_length": contract.context_length,
    }
    return dict(sorted(config.items()))


def _json(content: Mapping[str, object]) -> bytes:
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode()
