"""Rewrites a checkpoint in the other layout, tensor by tensor and without losing anything.

What the other layout has no place for goes into side files that its readers pass over: the unused
head into `apple_extras.safetensors`, the config as it was into `<layout>_config.json`. The way back
takes both up again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.checkpoint.configs import same_model, to_apple_config, to_transformers_config
from fastvlm_compile.checkpoint.safetensors_writer import Blocks, TensorSpec, write_safetensors
from fastvlm_compile.checkpoint.shards import plan_shards, write_shards
from fastvlm_compile.checkpoint.small_files import carry_over
from fastvlm_compile.progress import Progress
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import to_layout
from reference.checkpoint.raw import RawReader
from reference.checkpoint.storage import TensorInfo, scan_file
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import Layout, parse_config, read_config_json
from reference.errors import CheckpointError
from reference.prompt import IMAGE_TOKEN
from reference.tokenizer import load_tokenizer

EXTRAS_FILE = "apple_extras.safetensors"
"""Tensors, by Apple's names, for which the `transformers` layout has no place."""


@dataclass(frozen=True, kw_only=True)
class _StoredTensors:
    """All tensors of a checkpoint by canonical name, those of its side file included."""

    checkpoint: Checkpoint
    tensors: Mapping[str, TensorInfo]
    reader: RawReader

    @property
    def size_bytes(self) -> int:
        return sum(info.size_bytes for info in self.tensors.values())


def config_file_of(layout: Layout) -> str:
    """Name of the side file that keeps the config of `layout` beside one of the other layout."""
    return f"{layout}_config.json"


def converted_size_bytes(source: Path) -> int:
    """Disk space that a rewritten checkpoint needs, rounded up."""
    small_bytes = sum(file.stat().st_size for file in source.glob("*.json"))
    return _open(source).size_bytes + small_bytes + 20_000_000


def write_converted(source: Path, layout: Layout, out: Path, progress: Progress) -> None:
    """Write all of `source` in `layout` into the existing directory `out`.

    Raises:
        CheckpointError: `source` is in that layout already, cannot be used, or its side files do
            not belong to it.
        ConfigError, PromptError: its config or tokenizer cannot be used.
    """
    stored = _open(source)
    if stored.checkpoint.layout == layout:
        raise CheckpointError(
            f"{source}: is in the {layout} layout already", hint="there is nothing to convert"
        )
    config = _converted_config(stored.checkpoint, layout)
    _write_json(out / "config.json", config)
    original = read_config_json(source)
    _write_json(out / config_file_of(stored.checkpoint.layout), original)
    _write_tensors(stored, layout, out, progress)
    extras = {
        name: info for name, info in stored.tensors.items() if to_layout(name, layout) is None
    }
    if extras:
        specs = [_spec(name, info) for name, info in extras.items()]

        def blocks(tensor: TensorSpec) -> Blocks:
            return stored.reader.blocks(extras[tensor.name])

        write_safetensors(out / EXTRAS_FILE, specs, blocks, metadata={"format": "pt"})
    carry_over(source, out, stored.checkpoint.config, layout)


def write_weights(source: Path, layout: Layout, out: Path, progress: Progress) -> None:
    """Write only `config.json` and the weights of `source`, in `layout`, into `out`.

    Unlike `write_converted` this takes a source of either layout, and leaves no side files.

    Raises:
        CheckpointError, ConfigError, PromptError: see `write_converted`.
    """
    stored = _open(source)
    if stored.checkpoint.layout == layout:
        _write_json(out / "config.json", read_config_json(source))
    else:
        _write_json(out / "config.json", _converted_config(stored.checkpoint, layout))
    _write_tensors(stored, layout, out, progress)


def _open(source: Path) -> _StoredTensors:
    checkpoint = open_checkpoint(source)
    tensors = dict(checkpoint.tensors)
    extras = source / EXTRAS_FILE
    if extras.is_file() and checkpoint.layout == "transformers":
        tensors |= _checked_extras(extras, checkpoint)
    return _StoredTensors(checkpoint=checkpoint, tensors=tensors, reader=RawReader(source))


def _checked_extras(path: Path, checkpoint: Checkpoint) -> dict[str, TensorInfo]:
    found = scan_file(path)
    apple = _kept_config(checkpoint, "apple")
    config = checkpoint.config if apple is None else parse_config(apple, source=str(path.parent))
    expected = expected_tensors(config)
    for name, info in found.items():
        if name in checkpoint.tensors or expected.get(name) != info.shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} {list(info.shape)} does not belong to this checkpoint",
                hint="delete the file; only the unused head is lost with it",
            )
    return found


def _converted_config(checkpoint: Checkpoint, layout: Layout) -> Mapping[str, object]:
    kept = _kept_config(checkpoint, layout)
    if kept is not None:
        return kept
    source = str(checkpoint.path / "config.json")
    raw = read_config_json(checkpoint.path)
    if layout == "apple":
        return to_apple_config(raw, source=source, tied=checkpoint.tied)
    return to_transformers_config(
        raw, source=source, tied=checkpoint.tied, image_token_id=_image_token_id(checkpoint)
    )


def _kept_config(checkpoint: Checkpoint, layout: Layout) -> Mapping[str, object] | None:
    """The config that the checkpoint had in `layout`, before it was converted to what it is now."""
    path = checkpoint.path / config_file_of(layout)
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    config = parse_config(raw, source=str(path))
    if config.layout != layout or not same_model(config, checkpoint.config):
        raise CheckpointError(
            f"{path}: describes another model than config.json",
            hint="delete the file if the checkpoint was changed after its conversion",
        )
    return raw


def _image_token_id(checkpoint: Checkpoint) -> int:
    """Id of `<image>`, or the one it will get: Apple's tokenizers do not hold it."""
    tokenizer = load_tokenizer(checkpoint.path).with_special(IMAGE_TOKEN)
    token_id = tokenizer.token_id(IMAGE_TOKEN)
    assert token_id is not None, "it was just added"
    rows = checkpoint.config.text.vocab_size
    if token_id >= rows:
        raise CheckpointError(
            f"{checkpoint.path}: the embedding has {rows} rows, none for {IMAGE_TOKEN}, "
            f"which would be token {token_id}",
            hint="resize the embedding first",
        )
    return token_id


def _write_tensors(stored: _StoredTensors, layout: Layout, out: Path, progress: Progress) -> None:
    placed: dict[str, TensorInfo] = {}
    for name, info in stored.tensors.items():
        target = to_layout(name, layout)
        if target is not None:
            placed[target] = info
    shards = plan_shards([_spec(name, info) for name, info in placed.items()])

    def blocks(tensor: TensorSpec) -> Blocks:
        return stored.reader.blocks(placed[tensor.name])

    write_shards(out, shards, blocks, progress)


def _spec(name: str, info: TensorInfo) -> TensorSpec:
    return TensorSpec(name=name, dtype=info.dtype, shape=info.shape)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
