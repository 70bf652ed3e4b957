"""The tiny model's tokenizer: Qwen2's format and special tokens, learned from scene text."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from reference.prompt import build_prompt
from reference.scenes.layout import draw_layout
from reference.scenes.questions import ask
from reference.tiny.bpe import Pair, byte_alphabet, learn_merges
from reference.tokenizer import write_tokenizer_json

SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
IMAGE_TOKEN: Final = "<image>"

_SPECIAL = re.compile("|".join(re.escape(token) for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)))
_MAX_MERGES = 640
_NUM_CORPUS_SCENES = 2000

# `transformers` reads the turns of a conversation from this template; the same as Qwen2's.
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tokenizer(out: Path) -> None:
    """Learn the tokenizer and write all its files into `out`; the files never vary."""
    # First with the bytes alone: the words to learn from are those its pre-tokenizer splits.
    _write_files(out, [])
    _write_files(out, learn_merges(_word_counts(out / "tokenizer.json"), max_merges=_MAX_MERGES))


def _write_files(out: Path, merges: list[Pair]) -> None:
    vocab = {token: index for index, token in enumerate(sorted(byte_alphabet()))}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    added = {
        token: len(vocab) + index for index, token in enumerate((*SPECIAL_TOKENS, IMAGE_TOKEN))
    }
    _write_json(out / "vocab.json", vocab)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(out / "added_tokens.json", added)
    _write_json(out / "special_tokens_map.json", _special_tokens_map())
    _write_json(out / "tokenizer_config.json", _tokenizer_config(added))
    (out / "tokenizer.json").unlink(missing_ok=True)
    write_tokenizer_json(out, out / "tokenizer.json")


def _special_tokens_map() -> dict[str, object]:
    return {
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }


def _tokenizer_config(added: dict[str, int]) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {"content": token, **flags, "special": True}
            for token, index in added.items()
        },
        **_special_tokens_map(),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 2048,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _word_counts(tokenizer_json: Path) -> Counter[str]:
    """Pre-tokenized words of the corpus, spelled in the byte alphabet."""
    from tokenizers import Tokenizer

    pre_tokenizer = Tokenizer.from_file(str(tokenizer_json)).pre_tokenizer
    texts = Counter(text for prompt in _corpus() for text in _SPECIAL.split(prompt))
    counts: Counter[str] = Counter()
    for text, occurrences in texts.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(text):
            counts[word] += occurrences
    return counts


def _corpus() -> Iterator[str]:
    """Questions, answers and the prompt's template; nothing of the held-out scenes."""
    for seed in range(_NUM_CORPUS_SCENES):
        rng = np.random.default_rng(seed)
        for question in ask(draw_layout(rng, held_out=False), rng):
            yield build_prompt(question.text) + question.answer


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")
