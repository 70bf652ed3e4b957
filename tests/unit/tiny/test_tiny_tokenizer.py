"""The tiny tokenizer: Qwen2's format, the same ids as transformers, every byte representable."""

import json
from pathlib import Path

import pytest

from reference.prompt import build_prompt, load_tokenizer
from reference.scenes.scene import held_out
from reference.tiny.bpe import byte_alphabet, learn_merges
from reference.tiny.tokenizer import IMAGE_TOKEN, SPECIAL_TOKENS, write_tokenizer

TEXTS = [
    build_prompt("What colour is the star?"),
    build_prompt("Where is the number?", image_position="after"),
    "A red star at the top left, an orange cross in the middle and the number 42.",
    "e\u0301 Hello wörld — naïve 東京 🙂\t12345\r\n\n  x  ",
    "I'm <|im_start|> we'LL <image><image>",
    "",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(out)
    return out


def test_ids_equal_those_of_the_transformers_qwen2_tokenizer(directory: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory)
    ours = load_tokenizer(directory)
    assert type(theirs).__name__.startswith("Qwen2Tokenizer")
    assert len(theirs) == ours.vocab_size
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text), text


def test_the_chat_template_gives_the_prompt_that_the_reference_builds(directory: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory)
    turn = {"role": "user", "content": "<image>\nWhere is the star?"}
    rendered = theirs.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    assert rendered == build_prompt("Where is the star?")


def test_every_text_survives_the_round_trip(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    for text in ("naïve 東京 🙂\x00\x7f", *(scene.questions[-1].answer for scene in _scenes())):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_all_bytes_and_the_special_tokens_are_in_the_vocabulary(directory: Path) -> None:
    vocab = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    assert len(byte_alphabet()) == len(set(byte_alphabet())) == 256
    assert set(byte_alphabet()) <= set(vocab)
    tokenizer = load_tokenizer(directory)
    ids = [tokenizer.token_id(token) for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)]
    assert ids == list(range(len(vocab), len(vocab) + 4))


def test_words_of_the_scenes_are_single_tokens(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    for word in ("red", "yes", " triangle", " assistant", "How", "7"):
        assert len(tokenizer.encode(word)) == 1, word
    assert len(tokenizer.encode("42")) == 2  # single digits, as in Qwen2


def test_two_trainings_write_the_same_files(directory: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    for path in sorted(directory.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_merges_take_the_most_frequent_pair_first_and_ties_by_spelling() -> None:
    assert learn_merges({"abab": 3, "ac": 1}, max_merges=2) == [("a", "b"), ("ab", "ab")]
    assert learn_merges({"xy": 1, "ab": 1}, max_merges=9) == [("a", "b"), ("x", "y")]


def _scenes() -> list:
    return [held_out(index, size=32) for index in range(5)]
