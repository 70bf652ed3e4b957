"""The prompt template and the tokenizer equal what FastVLM was trained with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.errors import PromptError
from reference.prompt import (
    IMAGE_SENTINEL,
    PromptTokenizer,
    build_prompt,
    encode_prompt,
    load_tokenizer,
    write_tokenizer_json,
)
from reference.tokenizer import incremental_text

CORPUS = [
    "What is the colour of the large circle? Describe the image, please. I'm sure they'll see it.",
    "Wie viele Dreiecke? Übermäßig große Öfen. 三角形はいくつありますか？ 图中有几个圆形？",
    "Сколько квадратов на рисунке? naïve café 12345 67.89 %$#@! \n\n\ttabs and   spaces \r\n",
]
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "I'M sure they'Ll  see\n\n it\t\t.",
    "2024-11-21 costs 1234567.89 €",
    "naïve cafe\u0301 \u212b ﬁ",  # composed, decomposed, compatibility characters
    "图中有几个圆形？👩‍👩‍👧‍👦🏳️‍🌈",
    "  leading and trailing   ",
    "\r\n\r\n a \u00a0\u2003b\u200b",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start|> <|im_end|><|im_end|>< |im_end|>",
    "def f(x):\n    return x**2  # comment\n",
    "\x00\x01\x7f",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 tokenizer in the form of Apple's checkpoints: vocab, merges, added tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    directory = tmp_path_factory.mktemp("tokenizer")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS * 3, trainer)
    trained.model.save(str(directory))
    base = trained.get_vocab_size()
    decoder = {
        str(base + offset): {"content": token, "special": True}
        | dict.fromkeys(["lstrip", "rstrip", "normalized", "single_word"], False)
        for token, offset in SPECIAL.items()
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> PromptTokenizer:
    return load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def qwen2(checkpoint: Path) -> Any:
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(checkpoint)


@pytest.mark.parametrize("text", [*CORPUS, *TEXTS])
def test_text_gets_the_ids_that_transformers_qwen2_tokenizer_gives(
    text: str, tokenizer: PromptTokenizer, qwen2: Any
) -> None:
    ids = qwen2(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == qwen2.decode(ids, skip_special_tokens=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_unicode_text_gets_the_ids_that_transformers_qwen2_tokenizer_gives(
    text: str, tokenizer: PromptTokenizer, qwen2: Any
) -> None:
    assert tokenizer.encode(text) == qwen2(text, add_special_tokens=False)["input_ids"]


def test_a_written_tokenizer_json_reads_back_as_the_same_tokenizer(
    checkpoint: Path, tokenizer: PromptTokenizer, tmp_path: Path
) -> None:
    write_tokenizer_json(checkpoint, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size
    for text in [*CORPUS, *TEXTS]:
        assert again.encode(text) == tokenizer.encode(text)


def test_a_written_tokenizer_json_is_read_alike_by_transformers(
    checkpoint: Path, tokenizer: PromptTokenizer, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    write_tokenizer_json(checkpoint, tmp_path / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in [*CORPUS, *TEXTS]:
        assert tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_writing_tokenizer_json_twice_gives_the_same_bytes(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_tokenizer_json(checkpoint, tmp_path / "first.json")
    write_tokenizer_json(checkpoint, tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_added_tokens_keep_the_ids_of_the_checkpoint(
    checkpoint: Path, tokenizer: PromptTokenizer
) -> None:
    base = len(json.loads((checkpoint / "vocab.json").read_text()))
    assert tokenizer.token_id("<|im_end|>") == base + 2
    assert tokenizer.token_id("<image>") is None
    assert tokenizer.vocab_size == base + 3


def test_added_tokens_json_counts_too(checkpoint: Path, tmp_path: Path) -> None:
    base = copy_vocabulary(checkpoint, tmp_path)
    added = {"<|im_end|>": base + 1, "<|im_start|>": base}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("<|im_end|><|im_start|>") == [base + 1, base]


def test_an_added_token_whose_id_cannot_be_reached_is_an_error(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = copy_vocabulary(checkpoint, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": base + 7}))
    with pytest.raises(PromptError, match=rf"declared as id {base + 7} .* is {base}"):
        load_tokenizer(tmp_path)


def copy_vocabulary(checkpoint: Path, to: Path) -> int:
    for name in ("vocab.json", "merges.txt"):
        (to / name).write_bytes((checkpoint / name).read_bytes())
    return len(json.loads((to / "vocab.json").read_text()))


def test_a_directory_without_a_tokenizer_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"neither tokenizer\.json nor vocab\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ['{"cut', "[1, 2]", "\xff"])
def test_a_damaged_tokenizer_file_is_named_in_the_error(
    name: str, content: str, checkpoint: Path, tmp_path: Path
) -> None:
    copy_vocabulary(checkpoint, tmp_path)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(PromptError, match=name):
        load_tokenizer(tmp_path)


def test_merges_of_another_vocabulary_are_an_error(checkpoint: Path, tmp_path: Path) -> None:
    copy_vocabulary(checkpoint, tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq zzz\n")
    with pytest.raises(PromptError, match="does not hold 'zzz'"):
        load_tokenizer(tmp_path)


def test_text_that_is_not_unicode_is_an_error(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(PromptError, match="not valid Unicode"):
        tokenizer.encode("a\udc80b")


def test_the_template_is_qwen_2_with_the_image_before_the_text() -> None:
    assert build_prompt("What is this?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_image_can_come_right_after_the_text_as_in_apples_app() -> None:
    assert build_prompt("What is this?", image_position="after") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhat is this?<image><|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("position", "content"),
    [("before", "<image>\n<image>\nCompare."), ("after", "Compare.<image><image>")],
)
def test_several_images_have_one_mark_each(position: Any, content: str) -> None:
    prompt = build_prompt("Compare.", image_position=position, num_images=2)
    assert f"user\n{content}<|im_end|>" in prompt


def test_without_images_the_prompt_is_text_alone() -> None:
    assert "<image>" not in build_prompt("Hello", num_images=0)


def test_a_question_may_place_its_images_itself() -> None:
    prompt = build_prompt("Is <image> larger than <image>?", num_images=2)
    assert "user\nIs <image> larger than <image>?<|im_end|>" in prompt


@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_a_question_cannot_smuggle_in_an_image(num_images: int) -> None:
    with pytest.raises(PromptError, match=f"<image> 2 times; images given: {num_images}"):
        build_prompt("<image> and <image>", num_images=num_images)


def test_a_system_message_cannot_smuggle_in_an_image() -> None:
    with pytest.raises(PromptError, match="system message"):
        build_prompt("Hello", system="You see <image>.")


def test_an_unknown_image_position_lists_the_known_ones() -> None:
    unknown: Any = "middle"
    with pytest.raises(ValueError, match="known: before, after"):
        build_prompt("Hello", image_position=unknown)


def test_each_image_becomes_one_sentinel_and_the_rest_is_encoded_around_it(
    tokenizer: PromptTokenizer,
) -> None:
    ids = encode_prompt("a <image>\nb<image>", tokenizer)
    expected = [
        *tokenizer.encode("a "),
        IMAGE_SENTINEL,
        *tokenizer.encode("\nb"),
        IMAGE_SENTINEL,
    ]
    assert ids.dtype == np.int64
    assert ids.tolist() == expected


def test_the_prompt_is_encoded_as_transformers_encodes_it_with_an_image_token(
    tokenizer: PromptTokenizer, checkpoint: Path
) -> None:
    from transformers import Qwen2Tokenizer

    theirs = Qwen2Tokenizer.from_pretrained(checkpoint)
    theirs.add_tokens(["<image>"], special_tokens=True)
    image_id = theirs.convert_tokens_to_ids("<image>")
    prompt = build_prompt("Is <image> like <image> ?\n", num_images=2)
    expected = theirs(prompt, add_special_tokens=False)["input_ids"]
    ours = encode_prompt(prompt, tokenizer)
    assert [image_id if i == IMAGE_SENTINEL else i for i in ours] == expected


def test_a_prompt_with_another_number_of_images_is_an_error(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(PromptError, match="1 times; images given: 2"):
        encode_prompt("<image>", tokenizer, num_images=2)


def test_streamed_text_waits_for_whole_characters_and_adds_up(tokenizer: PromptTokenizer) -> None:
    text = "naïve 👩‍👩‍👧 图 ok"
    ids = tokenizer.encode(text)
    shown, pieces = "", []
    for end in range(1, len(ids) + 1):
        piece = incremental_text(tokenizer, ids[:end], shown)
        pieces.append(piece)
        shown += piece
    assert shown == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "" in pieces  # some token ended inside a character
