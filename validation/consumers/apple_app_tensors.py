"""The clauses of Apple's app about `model.safetensors`: names, dtypes, shapes, what is quantized.

Written from the modules that the app makes (ml-fastvlm, `app/FastVLM/FastVLM.swift`) and from what
`quantize` of MLX makes of a linear layer or an embedding; nothing is taken from what writes it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from validation.consumers.apple_app_files import FEATURE_CHANNELS, Json

_MODEL = "language_model.model."
_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor's entry: dtype as safetensors spells it ("F16"), and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensor_problems(weights: Path, config: Json) -> tuple[str, ...]:
    """Where the file is not what the app's modules and the config's `quantization` ask for.

    Args:
        weights: `model.safetensors`.
        config: `config.json`, without problems of its own.
    """
    try:
        found = stored_tensors(weights)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return (f"{weights.name}: not a safetensors file: {error!r}",)
    expected = expected_tensors(config)
    return tuple(_differences(weights.name, expected, found))


def stored_tensors(weights: Path) -> dict[str, Stored]:
    """All entries of a safetensors file's header.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is none that can be read.
    """
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Stored(dtype=str(entry["dtype"]), shape=tuple(entry["shape"]))
        for name, entry in header.items()
    }


def expected_tensors(config: Json) -> dict[str, Stored]:
    """Every tensor of the app's model: matrices as the config's `quantization` says, the rest F16.

    [O, I] of b bits in groups of g: weight U32 [O, I * b / 32], scales and biases F16 [O, I / g].
    """
    section = config.get("quantization")
    expected: dict[str, Stored] = {}
    for module, (rows, columns) in _matrices(config).items():
        if isinstance(section, dict):
            bits, group_size = int(section["bits"]), int(section["group_size"])
            words, groups = columns * bits // 32, columns // group_size
            expected[f"{module}.weight"] = Stored(dtype="U32", shape=(rows, words))
            for part in ("scales", "biases"):
                expected[f"{module}.{part}"] = Stored(dtype="F16", shape=(rows, groups))
        else:
            expected[f"{module}.weight"] = Stored(dtype="F16", shape=(rows, columns))
    for name, size in _vectors(config).items():
        expected[name] = Stored(dtype="F16", shape=(size,))
    return expected


def _matrices(config: Json) -> dict[str, tuple[int, int]]:
    """Module -> [outputs, inputs] of every linear layer, and of the embedding."""
    hidden, wide = _size(config, "hidden_size"), _size(config, "intermediate_size")
    head_dim = hidden // _size(config, "num_attention_heads")
    narrow = head_dim * _size(config, "num_key_value_heads")
    vocabulary = _size(config, "vocab_size")
    found = {
        f"{_MODEL}embed_tokens": (vocabulary, hidden),
        "multi_modal_projector.linear_0": (hidden, FEATURE_CHANNELS),
        "multi_modal_projector.linear_2": (hidden, hidden),
    }
    if config.get("tie_word_embeddings") is False:
        found["language_model.lm_head"] = (vocabulary, hidden)
    for layer in range(_size(config, "num_hidden_layers")):
        at = f"{_MODEL}layers.{layer}"
        found |= {
            f"{at}.self_attn.q_proj": (hidden, hidden),
            f"{at}.self_attn.k_proj": (narrow, hidden),
            f"{at}.self_attn.v_proj": (narrow, hidden),
            f"{at}.self_attn.o_proj": (hidden, hidden),
            f"{at}.mlp.gate_proj": (wide, hidden),
            f"{at}.mlp.up_proj": (wide, hidden),
            f"{at}.mlp.down_proj": (hidden, wide),
        }
    return found


def _vectors(config: Json) -> dict[str, int]:
    """Norms, and biases of linear layers: never quantized."""
    hidden = _size(config, "hidden_size")
    narrow = hidden // _size(config, "num_attention_heads") * _size(config, "num_key_value_heads")
    found = {
        f"{_MODEL}norm.weight": hidden,
        "multi_modal_projector.linear_0.bias": hidden,
        "multi_modal_projector.linear_2.bias": hidden,
    }
    for layer in range(_size(config, "num_hidden_layers")):
        at = f"{_MODEL}layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": hidden,
            f"{at}.post_attention_layernorm.weight": hidden,
            f"{at}.self_attn.q_proj.bias": hidden,
            f"{at}.self_attn.k_proj.bias": narrow,
            f"{at}.self_attn.v_proj.bias": narrow,
        }
    return found


def _size(config: Json, key: str) -> int:
    value = config[key]
    assert isinstance(value, int), "checked before"
    return value


def _differences(
    file: str, expected: Mapping[str, Stored], found: Mapping[str, Stored]
) -> Iterator[str]:
    for name in sorted(expected.keys() - found.keys()):
        yield f"{file}: {name}: missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"{file}: {name}: the app has no place for it"
    for name in sorted(expected.keys() & found.keys()):
        want, have = expected[name], found[name]
        if want != have:
            yield (
                f"{file}: {name}: expected {want.dtype} {list(want.shape)}, "
                f"found {have.dtype} {list(have.shape)}"
            )
