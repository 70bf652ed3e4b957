"""Qwen2's byte-level BPE tokenizer, from `tokenizer.json` or from `vocab.json` + `merges.txt`.

Only the `tokenizers` library is used. Source of the format: `Qwen2Tokenizer` of `transformers` 5
(NFC normalisation, one regular expression, byte-level BPE without a prefix space).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reference.errors import PromptError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# Qwen2's pre-tokenizer: contractions, words with a leading symbol, single digits, symbols, breaks.
_SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Of an added token, as `tokenizer_config.json` and `tokenizers` both name them.
_FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")


class PromptTokenizer:
    """The tokenizer of a checkpoint or bundle: text to ids and back, special tokens recognised."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        base_size = tokenizer.get_vocab_size(with_added_tokens=False)
        # One past the highest id: added tokens may leave holes behind the base vocabulary.
        self._vocab_size = max([base_size - 1, *self._added()]) + 1

    @property
    def vocab_size(self) -> int:
        """Number of ids that mean something; a model's logits may have more (padding) rows."""
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        """Text to ids; adds nothing of its own.

        Raises:
            PromptError: the text holds lone surrogates (bytes that were not Unicode text).
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text is not valid Unicode: {error.reason} at character {error.start}",
                hint="give the prompt in UTF-8",
            ) from error
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; special tokens are left out, incomplete UTF-8 becomes U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_id(self, token: str) -> int | None:
        """Id of one token, None if the vocabulary does not hold it."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def with_special(self, token: str) -> "PromptTokenizer":
        """The same tokenizer with one special token more, unless it is there already."""
        from tokenizers import AddedToken, Tokenizer

        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        if token not in {added.content for added in self._added().values()}:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        return PromptTokenizer(tokenizer)

    def added_tokens(self) -> dict[int, dict[str, str | bool]]:
        """Tokens beyond the vocabulary by id, as `tokenizer_config.json` spells them."""
        return {
            token_id: {"content": token.content, **{flag: getattr(token, flag) for flag in _FLAGS}}
            for token_id, token in sorted(self._added().items())
        }

    def to_json(self) -> str:
        """The whole tokenizer as the text of a `tokenizer.json`."""
        return str(self._tokenizer.to_str(pretty=True))

    def _added(self) -> dict[int, "AddedToken"]:
        found: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        return found


def load_tokenizer(directory: Path) -> PromptTokenizer:
    """Reads `tokenizer.json`, or builds Qwen2's tokenizer from `vocab.json` and `merges.txt`.

    Tokens of `added_tokens.json` and of `tokenizer_config.json`'s `added_tokens_decoder` are added
    at the ids that the files give them.

    Raises:
        PromptError: files are missing or damaged, or an added token cannot get its id.
    """
    from tokenizers import Tokenizer

    whole = directory / "tokenizer.json"
    if whole.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(whole))
        except Exception as error:  # the Rust binding raises nothing narrower
            raise PromptError(
                f"{whole} is not a tokenizer: {error}",
                hint="copy the file from the checkpoint again",
            ) from error
    else:
        tokenizer = _from_vocab_and_merges(directory)
    _add_tokens(tokenizer, _declared_tokens(directory), directory)
    return PromptTokenizer(tokenizer)


def write_tokenizer_json(directory: Path, out: Path) -> None:
    """Writes `out` (a `tokenizer.json`) for a checkpoint directory in any of the known forms.

    Raises:
        PromptError: as `load_tokenizer`.
    """
    out.write_text(load_tokenizer(directory).to_json(), encoding="utf-8")


def _from_vocab_and_merges(directory: Path) -> "Tokenizer":
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    vocab_path, merges_path = directory / "vocab.json", directory / "merges.txt"
    for path in (vocab_path, merges_path):
        if not path.is_file():
            raise PromptError(
                f"{directory} holds no tokenizer: neither tokenizer.json nor {path.name}",
                hint="it needs tokenizer.json, or vocab.json and merges.txt",
            )
    vocab = {token: _as_id(value, token, vocab_path) for token, value in _read(vocab_path).items()}
    merges = _read_merges(merges_path)
    for left, right in merges:
        missing = [part for part in (left, right, left + right) if part not in vocab]
        if missing:
            raise PromptError(
                f"{merges_path} merges {left!r} and {right!r}, but {vocab_path.name} does not hold "
                f"{missing[0]!r}",
                hint="vocab.json and merges.txt belong to different tokenizers",
            )
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise PromptError(f"{path}, line {number}: {line!r} is not a pair of tokens")
        merges.append((pair[0], pair[1]))
    return merges


def _declared_tokens(directory: Path) -> dict[int, "AddedToken"]:
    from tokenizers import AddedToken

    declared: dict[int, AddedToken] = {}
    simple = directory / "added_tokens.json"
    if simple.is_file():
        for token, value in _read(simple).items():
            declared[_as_id(value, token, simple)] = AddedToken(
                token, special=True, normalized=False
            )
    config = directory / "tokenizer_config.json"
    decoder = _read(config).get("added_tokens_decoder", {}) if config.is_file() else {}
    if not isinstance(decoder, Mapping):
        raise PromptError(f"{config}: added_tokens_decoder is not an object")
    for key, entry in decoder.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
            raise PromptError(f"{config}: added_tokens_decoder[{key!r}] has no content")
        flags = {flag: bool(entry.get(flag, False)) for flag in _FLAGS}
        declared[_as_id(key, entry["content"], config)] = AddedToken(entry["content"], **flags)
    return declared


def _add_tokens(tokenizer: "Tokenizer", declared: Mapping[int, "AddedToken"], source: Path) -> None:
    # Ids are dealt out in order, so tokens must be added in the order of their ids.
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token_id in sorted(declared):
        token = declared[token_id]
        if token.content not in known:
            tokenizer.add_tokens([token])
        actual = tokenizer.token_to_id(token.content)
        if actual != token_id:
            raise PromptError(
                f"{source}: the added token {token.content!r} is declared as id {token_id} but its "
                f"place in the vocabulary is {actual}",
                hint="the tokenizer files belong to different tokenizers",
            )


def _as_id(value: object, token: str, path: Path) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise PromptError(f"{path}: token {token!r} has no integer id: {value!r}") from error


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise PromptError(
            f"{path} is not JSON: {error}", hint="copy the file from the checkpoint again"
        ) from error
    if not isinstance(content, dict):
        raise PromptError(f"{path} is not a JSON object")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error


def incremental_text(tokenizer: PromptTokenizer, ids: Sequence[int], shown: str) -> str:
    """What a stream may print next: the text of `ids` beyond `shown`, held back while a character
    is still incomplete (its bytes may come with the next token)."""
    text = tokenizer.decode(ids)
    if text.endswith("\N{REPLACEMENT CHARACTER}") or not text.startswith(shown):
        return ""
    return text[len(shown) :]
