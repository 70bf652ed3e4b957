"""The clauses of Apple's app about small files: which there are, and what they must say.

Written from what the app reads, not from what we write. Source: ml-fastvlm,
`app/FastVLM/FastVLM.swift` (the decoded structures, their defaults, the preconditions), and
MLXLMCommon's model factory, which takes `quantization` and the processor's class from here.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "fastvithd.mlpackage"
WEIGHTS = "model.safetensors"
IMAGE_SIZE = 1024
FEATURE_CHANNELS = 3072
IMAGE_TOKEN = "<image>"
GROUP_SIZE = 64

_JSON_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0}
"""What the app takes where the key is missing: then the model must have just that."""
_PROCESSOR = "LlavaProcessor"

Json = Mapping[str, object]


def file_problems(folder: Path) -> tuple[str, ...]:
    """Which files are missing, unreadable or too many."""
    return tuple(_file_problems(folder))


def config_problems(config: Json) -> tuple[str, ...]:
    """Where `config.json` is not what the app decodes."""
    return tuple(_config_problems(config))


def processor_problems(preprocessor: Json, processor: Json) -> tuple[str, ...]:
    """Where the image's preparation is not that of the tower."""
    return tuple(_processor_problems(preprocessor, processor))


def tokenizer_problems(tokenizer_config: Json, tokenizer: Json, config: Json) -> tuple[str, ...]:
    """Where `<image>` is not the one token that the app looks for."""
    return tuple(_tokenizer_problems(tokenizer_config, tokenizer, config))


def read_object(path: Path) -> dict[str, object]:
    """A file's JSON object; empty where it has none, which `file_problems` tells."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file_problems(folder: Path) -> Iterator[str]:
    for name in _JSON_FILES:
        if not (folder / name).is_file():
            yield f"{name}: missing"
        elif not read_object(folder / name):
            yield f"{name}: not a JSON object"
    if not (folder / PACKAGE).is_dir():
        yield f"{PACKAGE}: missing; Xcode makes the class `fastvithd` from this name"
    weights = sorted(path.name for path in folder.glob("*.safetensors*"))
    if weights != [WEIGHTS]:
        yield f"expected {WEIGHTS} alone, found {', '.join(weights) or 'no weights'}"


def _config_problems(config: Json) -> Iterator[str]:
    def told(key: str, expected: object) -> str:
        found = json.dumps(config[key]) if key in config else "nothing"
        return f"config.json: {key}: expected {expected}, found {found}"

    if config.get("model_type") != "llava_qwen2":
        yield told("model_type", '"llava_qwen2"')
    if config.get("mm_hidden_size") != FEATURE_CHANNELS:
        yield told("mm_hidden_size", FEATURE_CHANNELS)
    for key in _SIZES:
        if not _is_count(config.get(key)):
            yield told(key, "a whole number above 0")
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if _is_count(heads) and _is_count(hidden) and hidden % heads:  # type: ignore[operator]
        yield told("num_attention_heads", f"a divisor of hidden_size {hidden}")
    vocabulary, token = config.get("vocab_size"), config.get("image_token_index")
    if not (_is_count(token) and _is_count(vocabulary) and token < vocabulary):  # type: ignore[operator]
        yield told("image_token_index", f"an id below vocab_size {vocabulary}")
    if not isinstance(config.get("tie_word_embeddings"), bool):
        yield told("tie_word_embeddings", "true or false (missing is true)")
    for key, usual in _DEFAULTS.items():
        if not isinstance(config.get(key, usual), int | float) or isinstance(config.get(key), bool):
            yield told(key, f"a number (missing is {usual:g})")
    if config.get("rope_scaling") is not None:
        yield told("rope_scaling", "nothing, or null: the app wants an mrope_section otherwise")
    yield from _quantization_problems(config)


def _quantization_problems(config: Json) -> Iterator[str]:
    """None for float16; else one group size and one number of bits, for all."""
    section = config.get("quantization")
    if section is None:
        return
    at = "config.json: quantization"
    if not isinstance(section, dict):
        yield f"{at}: expected a table, found {json.dumps(section)}"
        return
    if section.get("group_size") != GROUP_SIZE:
        yield f"{at}.group_size: expected {GROUP_SIZE}, found {section.get('group_size')}"
    if section.get("bits") not in (4, 8):
        yield f"{at}.bits: expected 4 or 8, found {section.get('bits')}"
    if others := sorted(section.keys() - {"group_size", "bits"}):
        yield f"{at}: the app has one form for all, found {', '.join(others)} too"


def _processor_problems(preprocessor: Json, processor: Json) -> Iterator[str]:
    for name, expected in (
        ("image_mean", [0.0, 0.0, 0.0]),
        ("image_std", [1.0, 1.0, 1.0]),
        ("size", {"shortest_edge": IMAGE_SIZE}),
        ("crop_size", {"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        ("processor_class", _PROCESSOR),
    ):
        if preprocessor.get(name) != expected:
            found = preprocessor.get(name)
            yield f"preprocessor_config.json: {name}: expected {expected}, found {found}"
    for name, told in (
        ("processor_class", _PROCESSOR),
        ("image_token", IMAGE_TOKEN),
        ("num_additional_image_tokens", 0),
        ("patch_size", 64),
    ):
        if processor.get(name) != told:
            found = processor.get(name)
            yield f"processor_config.json: {name}: expected {told}, found {found}"


def _tokenizer_problems(tokenizer_config: Json, tokenizer: Json, config: Json) -> Iterator[str]:
    index = config.get("image_token_index")
    decoder = tokenizer_config.get("added_tokens_decoder")
    entry = decoder.get(str(index)) if isinstance(decoder, dict) else None
    at = f"tokenizer_config.json: added_tokens_decoder[{index}]"
    if not isinstance(entry, dict) or entry.get("content") != IMAGE_TOKEN:
        yield f"{at}: expected {IMAGE_TOKEN}, found {entry}"
    elif entry.get("special") is not True:
        yield f"{at}: expected a special token, so that text is cut around it"
    added = tokenizer.get("added_tokens")
    ids = [
        each.get("id")
        for each in (added if isinstance(added, list) else [])
        if isinstance(each, dict) and each.get("content") == IMAGE_TOKEN
    ]
    if ids != [index]:
        yield f"tokenizer.json: added_tokens: expected {IMAGE_TOKEN} with id {index}, found {ids}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
