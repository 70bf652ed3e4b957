"""A made-up tokenizer in Qwen2's format, with the special tokens at their real ids.

Qwen2's own vocabulary is not part of this project. The stand-in has the same size, the same kind of
entries (256 bytes, then the products of merges) and the same special tokens, so that files have
their real sizes, every id that a model may choose decodes to text, and `<|im_end|>` is 151645.
Prompts become other ids, and more of them, than with the real one.

Merges build words from frequent letters first: all pairs of letters, a space before a letter or a
pair, then three and four letters, each also behind a space.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from fastvlm_compile.bundle.chat_template import chat_template
from reference.errors import CheckpointError
from reference.prompt import IMAGE_TOKEN

_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_SPACE = "Ġ"
"""How byte-level BPE writes the space."""

_NUM_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """What the made-up tokenizer shall hold."""

    num_regular: int
    """Bytes and products of merges; the first added token gets this id."""
    added: tuple[str, ...]
    """Special tokens in the order of their ids, `<image>` the last."""
    model_max_length: int

    @cached_property
    def added_ids(self) -> dict[str, int]:
        """Special token -> id."""
        return {token: self.num_regular + index for index, token in enumerate(self.added)}

    @property
    def image_token_id(self) -> int:
        """Id of `<image>`."""
        return self.added_ids[IMAGE_TOKEN]


def write_tokenizer_files(directory: Path, spec: TokenizerSpec) -> None:
    """Write the tokenizer as Apple ships it: no `tokenizer.json`, but what it is made from.

    Raises:
        CheckpointError: the vocabulary cannot have that many entries.
    """
    merges = _merges(spec.num_regular)
    vocab = {token: index for index, token in enumerate(_byte_tokens())}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    assert len(vocab) == spec.num_regular, "a merge made a token that was there already"
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (directory / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    _write_json(directory / "vocab.json", vocab, indent=None)
    _write_json(directory / "added_tokens.json", spec.added_ids)
    _write_json(directory / "special_tokens_map.json", _special_tokens_map(spec))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(spec))


def _special_tokens_map(spec: TokenizerSpec) -> dict[str, object]:
    return {
        "additional_special_tokens": list(spec.added[1:]),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }


def _tokenizer_config(spec: TokenizerSpec) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {"content": token, **flags, "special": True}
            for token, index in spec.added_ids.items()
        },
        "additional_special_tokens": list(spec.added[1:]),
        "bos_token": None,
        "chat_template": chat_template("before"),
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": spec.model_max_length,
        "pad_token": "<|endoftext|>",
        "padding_side": "right",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _byte_tokens() -> list[str]:
    """One printable character per byte, in the order of GPT-2's byte-level BPE.

    Printable bytes stand for themselves and come first, the rest are moved behind U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(_NUM_BYTES) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(hidden))]


def _merges(num_regular: int) -> list[tuple[str, str]]:
    wanted = num_regular - _NUM_BYTES
    found = list(islice(_all_merges(), wanted)) if wanted >= 0 else []
    if len(found) != wanted:
        raise CheckpointError(
            f"no made-up tokenizer has {num_regular} entries",
            hint=f"the vocabulary must hold {_NUM_BYTES} bytes and the special tokens at least",
        )
    return found


def _all_merges() -> Iterator[tuple[str, str]]:
    pairs = list(_by_frequency(list(_LETTERS), list(_LETTERS)))
    yield from pairs
    yield from ((_SPACE, letter) for letter in _LETTERS)
    yield from ((_SPACE, left + right) for left, right in pairs)
    doubles = [left + right for left, right in pairs]
    triples = list(_by_frequency(doubles, list(_LETTERS)))
    yield from triples
    yield from ((_SPACE + left, right) for left, right in triples)
    for left, right in _by_frequency(doubles, doubles):
        yield left, right
        yield _SPACE + left, right


def _by_frequency(lefts: list[str], rights: list[str]) -> Iterator[tuple[str, str]]:
    """All pairs, those of early entries first: by the sum of the places, then by the left's."""
    for total in range(len(lefts) + len(rights) - 1):
        for left in range(max(0, total - len(rights) + 1), min(total + 1, len(lefts))):
            yield lefts[left], rights[total - left]


def _write_json(path: Path, content: object, *, indent: int | None = 2) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")
