"""Makes up a checkpoint: the real names, shapes and files, random weights with real statistics."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.checkpoint.calibration import calibrate
from fastvlm_compile.checkpoint.configs import (
    RawConfig,
    apple_config,
    to_transformers_config,
)
from fastvlm_compile.checkpoint.processor_files import write_processor_files
from fastvlm_compile.checkpoint.safetensors_writer import Blocks, TensorSpec
from fastvlm_compile.checkpoint.shards import Shard, plan_shards, shards_size_bytes, write_shards
from fastvlm_compile.checkpoint.sizes import SIZES, size_named
from fastvlm_compile.checkpoint.statistics import Statistics, is_counter
from fastvlm_compile.checkpoint.tokenizer_files import TokenizerSpec, write_tokenizer_files
from fastvlm_compile.progress import Progress, silent
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import LM_HEAD, to_layout
from reference.config import FastVLMConfig, Layout, parse_config
from reference.errors import ConfigError
from reference.prompt import IMAGE_TOKEN, write_tokenizer_json

_SMALL_FILES_BYTES = 20_000_000
"""Tokenizer and configs, rounded up."""

_VOCABULARY_STEP = 64
"""The conversion to `transformers` adds `<image>` and pads the vocabulary to a multiple of it."""

_DEFAULT_ADDED = SIZES[0].added_tokens


@dataclass(frozen=True, kw_only=True)
class SyntheticPlan:
    """Everything about a made-up checkpoint but its values."""

    raw_config: RawConfig
    """`config.json` in `layout`."""
    config: FastVLMConfig
    layout: Layout
    tokenizer: TokenizerSpec
    shards: tuple[Shard, ...]
    canonical_names: Mapping[str, str]
    """Name in the files -> canonical name."""

    @property
    def size_bytes(self) -> int:
        """Disk space for all files, rounded up."""
        return shards_size_bytes(self.shards) + _SMALL_FILES_BYTES


def plan_size(size_name: str, layout: Layout) -> SyntheticPlan:
    """The plan of a size: `0.5b`, `1.5b`, `7b` or `real-tower`.

    Raises:
        CheckpointError: the size is unknown; the known ones are listed.
    """
    size = size_named(size_name)
    raw = apple_config(size)
    added = size.added_tokens
    if layout == "transformers":
        rows = size.vocab_size + 1
        raw["vocab_size"] = -(-rows // _VOCABULARY_STEP) * _VOCABULARY_STEP
        # The converted checkpoints all have Qwen2's tokenizer, also the 7B.
        added = _DEFAULT_ADDED
    return plan(raw, layout, num_regular=size.num_regular_tokens, added=added)


def plan(
    config_raw: RawConfig,
    layout: Layout,
    *,
    num_regular: int | None = None,
    added: tuple[str, ...] = _DEFAULT_ADDED,
) -> SyntheticPlan:
    """The plan of any FastVLM.

    Args:
        config_raw: a `config.json` in Apple's layout.
        layout: of the files to be written.
        num_regular: entries of the tokenizer before the added tokens; by default the config's
            `bos_token_id`, which is `<|endoftext|>`, the first added token.
        added: added tokens before `<image>`.

    Raises:
        ConfigError: the config is not FastVLM's, or its vocabulary does not hold the tokens.
        CheckpointError: the layout cannot hold it.
    """
    config = parse_config(config_raw, source="config.json")
    if num_regular is None:
        num_regular = _first_added_token(config_raw)
    tokenizer = TokenizerSpec(
        num_regular=num_regular,
        added=(*added, IMAGE_TOKEN),
        model_max_length=config.context_length,
    )
    if not tokenizer.image_token_id < config.text.vocab_size:
        raise ConfigError(
            f"config.json: vocab_size {config.text.vocab_size} has no row for the token "
            f"{IMAGE_TOKEN}, which would be {tokenizer.image_token_id}"
        )
    raw = dict(config_raw)
    if layout == "transformers":
        raw = to_transformers_config(
            config_raw,
            source="config.json",
            tied=config.text.tie_word_embeddings,
            image_token_id=tokenizer.image_token_id,
        )
    tensors = tuple(_tensors(config, layout))
    return SyntheticPlan(
        raw_config=raw,
        config=config,
        layout=layout,
        tokenizer=tokenizer,
        shards=plan_shards([tensor for _, tensor in tensors]),
        canonical_names={tensor.name: name for name, tensor in tensors},
    )


def _tensors(config: FastVLMConfig, layout: Layout) -> Iterator[tuple[str, TensorSpec]]:
    """Canonical name and description of each tensor that the files hold."""
    for name, shape in expected_tensors(config).items():
        stored_name = to_layout(name, layout)
        if stored_name is None or (name == LM_HEAD and config.text.tie_word_embeddings):
            continue
        dtype = "int64" if is_counter(name) else "float16"
        yield name, TensorSpec(name=stored_name, dtype=dtype, shape=shape)


def synthesize(
    config_raw: RawConfig, seed: int, layout: Layout, out: Path, progress: Progress = silent
) -> None:
    """Write a checkpoint of any FastVLM with made-up weights into the directory `out`.

    Args:
        config_raw: a `config.json` in Apple's layout (see `plan`).
        seed: with the canonical name of a tensor it decides its values.
        layout: of the files.
        out: an existing directory.
        progress: told after each tensor.

    Raises:
        ConfigError, CheckpointError: see `plan`.
    """
    write_checkpoint(plan(config_raw, layout), seed, out, progress)


def write_checkpoint(made_up: SyntheticPlan, seed: int, out: Path, progress: Progress) -> None:
    """Write all files of a plan into the existing directory `out`."""
    text = json.dumps(made_up.raw_config, indent=2) + "\n"
    (out / "config.json").write_text(text, encoding="utf-8")
    write_tokenizer_files(out, made_up.tokenizer)
    if made_up.layout == "transformers":
        write_tokenizer_json(out, out / "tokenizer.json")
    write_processor_files(out, made_up.config, made_up.layout)
    calibration = calibrate(made_up.config, seed, progress)
    statistics = Statistics(config=made_up.config, seed=seed, calibration=calibration)

    def blocks(tensor: TensorSpec) -> Blocks:
        return statistics.encoded_blocks(made_up.canonical_names[tensor.name], tensor.shape)

    write_shards(out, made_up.shards, blocks, progress)


def _first_added_token(config_raw: RawConfig) -> int:
    token = config_raw.get("bos_token_id")
    if not isinstance(token, int) or isinstance(token, bool):
        raise ConfigError(
            "config.json: bos_token_id is missing, so the tokenizer's size is not known",
            hint="give the id of <|endoftext|>, which is the number of entries before it",
        )
    return token
