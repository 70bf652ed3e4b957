"""Tokenizer, processor and notes beside the weights: carried over from checkpoint to checkpoint."""

import json
import shutil
from pathlib import Path

from fastvlm_compile.checkpoint.inspect import ADAPTER_PATTERNS
from fastvlm_compile.checkpoint.processor_files import write_processor_files
from reference.config import FastVLMConfig, Layout
from reference.prompt import IMAGE_TOKEN
from reference.tokenizer import load_tokenizer

TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""What a Qwen2 tokenizer is made of, beside `tokenizer.json`."""

PROCESSOR_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)

_CARRIED_SUFFIXES = (".json", ".txt", ".jinja", ".md")


def write_processor_folder(source: Path, out: Path) -> None:
    """Fill `out` with the tokenizer and processor files that `source` has.

    `tokenizer.json` is always there afterwards, with every token that any of the files declares.

    Raises:
        PromptError: the tokenizer cannot be used.
    """
    for name in (*TOKENIZER_FILES, *PROCESSOR_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    text = load_tokenizer(source).to_json()
    (out / "tokenizer.json").write_text(text, encoding="utf-8")


def carry_over(source: Path, out: Path, config: FastVLMConfig, layout: Layout) -> None:
    """Copy what lies beside the weights, and add what readers of `layout` want and did not get.

    Args:
        source: the checkpoint that was converted.
        out: the conversion, with its weights and configs already there; nothing is overwritten.
        config: of the checkpoint.
        layout: of the conversion.

    Raises:
        PromptError: the tokenizer cannot be used.
    """
    adapters = {file.name for pattern in ADAPTER_PATTERNS for file in source.glob(pattern)}
    for file in sorted(source.iterdir()):
        carried = file.suffix in _CARRIED_SUFFIXES or file.name.startswith("LICENSE")
        skipped = file.name in adapters or file.name.endswith(".index.json")
        ours = file.name in ("config.json", "apple_config.json", "transformers_config.json")
        if file.is_file() and carried and not skipped and not ours:
            shutil.copyfile(file, out / file.name)
    write_processor_files(out, config, layout)
    if layout == "transformers":
        _complete_tokenizer(out)


def _complete_tokenizer(directory: Path) -> None:
    """`transformers` reads `tokenizer.json` and wants `<image>` in it, which Apple's lack."""
    tokenizer = load_tokenizer(directory).with_special(IMAGE_TOKEN)
    (directory / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    path = directory / "tokenizer_config.json"
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    added = {str(token_id): entry for token_id, entry in tokenizer.added_tokens().items()}
    if given.get("added_tokens_decoder") == added:
        return
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        **given,
        "added_tokens_decoder": added,
    }
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
