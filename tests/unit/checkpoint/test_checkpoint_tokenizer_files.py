"""The made-up tokenizer is a Qwen2 tokenizer in every respect but its words."""

import json

import pytest

from fastvlm_compile.checkpoint.synthesize import plan_size
from fastvlm_compile.checkpoint.tokenizer_files import TokenizerSpec, write_tokenizer_files
from reference.errors import CheckpointError
from reference.prompt import build_prompt, encode_prompt, load_tokenizer, write_tokenizer_json

TEXTS = [
    "the cat sat on the mat",
    "  Two spaces, 123 digits\nand a\ttab\r\n",
    "naïve Größe 漢字 🙂 e\u0301",
    "don't we'll I'M",
    "<|im_start|>user\nWhat?<|im_end|>\n",
]


@pytest.fixture(scope="module")
def real_size(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer_files(directory, plan_size("0.5b", "apple").tokenizer)
    return directory


def test_the_special_tokens_have_their_real_ids(real_size) -> None:
    tokenizer = load_tokenizer(real_size)
    ids = {
        token: tokenizer.token_id(token)
        for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
    }
    assert list(ids.values()) == [151643, 151644, 151645, 151646]
    assert tokenizer.vocab_size == 151647


def test_the_7b_has_its_image_token_behind_the_tokens_of_qwen2_5() -> None:
    apple = plan_size("7b", "apple").tokenizer
    assert (apple.added_ids["<|im_end|>"], apple.image_token_id) == (151645, 151665)
    assert plan_size("7b", "transformers").tokenizer.image_token_id == 151646


def test_every_id_of_the_vocabulary_decodes_and_no_two_alike(real_size) -> None:
    vocab = json.loads((real_size / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocab.values()) == list(range(151643))
    merges = (real_size / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(merges) == 1 + 151643 - 256
    tokenizer = load_tokenizer(real_size)
    letters = [tokenizer.decode([index]) for index in range(256, 151643, 997)]
    assert all(text.strip().isalpha() for text in letters)
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_and_transformers_agrees_on_its_ids(real_size, text) -> None:
    from transformers import Qwen2Tokenizer

    ours = load_tokenizer(real_size)
    ids = ours.encode(text)
    import unicodedata

    plain = unicodedata.normalize("NFC", text)
    for token in ("<|im_start|>", "<|im_end|>"):
        plain = plain.replace(token, "")
    assert ours.decode(ids) == plain
    theirs = Qwen2Tokenizer.from_pretrained(real_size)
    assert theirs.encode(text, add_special_tokens=False) == ids


def test_common_words_take_few_tokens(real_size) -> None:
    tokenizer = load_tokenizer(real_size)
    text = "there is an image of the sea and the shore"
    assert len(tokenizer.encode(text)) < len(text) / 2


def test_a_tokenizer_json_made_from_the_files_is_the_same_tokenizer(real_size, tmp_path) -> None:
    write_tokenizer_json(real_size, tmp_path / "tokenizer.json")
    prompt = build_prompt("Where is the cat?")
    one, other = load_tokenizer(real_size), load_tokenizer(tmp_path)
    assert encode_prompt(prompt, one).tolist() == encode_prompt(prompt, other).tolist()


def test_the_chat_template_renders_the_prompt_of_the_reference(real_size) -> None:
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer.from_pretrained(real_size)
    content = [{"type": "image"}, {"type": "text", "text": "Where is the cat?"}]
    messages = [{"role": "user", "content": content}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == build_prompt("Where is the cat?")


def test_too_small_or_too_large_vocabularies_are_refused(tmp_path) -> None:
    for count in (255, 10**6):
        spec = TokenizerSpec(num_regular=count, added=("<image>",), model_max_length=8)
        with pytest.raises(CheckpointError, match=str(count)):
            write_tokenizer_files(tmp_path, spec)
