"""A checkpoint opened: its config, and its tensors by canonical name, read one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reference.checkpoint.expected import expected_tensors, is_optional
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD, to_layout
from reference.checkpoint.raw import RawReader
from reference.checkpoint.storage import (
    TensorInfo,
    find_weight_files,
    load_pickled,
    read_tensor,
    scan_file,
)
from reference.config import FastVLMConfig, Layout, load_config
from reference.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from reference.weights import Rows

_NUM_NAMED = 8
"""How many tensors of each kind an error names before it counts the rest."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint directory whose files have been listed, not yet read."""

    path: Path
    config: FastVLMConfig
    tensors: Mapping[str, TensorInfo]
    """By canonical (Apple's) name."""
    problems: tuple[str, ...] = field(default=())
    """Missing, unexpected and misshapen tensors; empty in a usable checkpoint."""

    @property
    def layout(self) -> Layout:
        """Which of the two layouts the files are in."""
        return self.config.layout

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding: the tensors decide, not the config."""
        if LM_HEAD not in self.tensors:
            return True
        return RawReader(self.path).equal(self.tensors[LM_HEAD], self.tensors[EMBED_TOKENS])

    def read(self, name: str) -> "Tensor":
        """The tensor `name` (canonical) in the dtype it is stored in, memory-mapped."""
        info = self.tensors[name]
        path = self.path / info.file
        if path.suffix != ".bin":
            return read_tensor(path, info.stored_name)
        if info.file not in self._pickled:
            self._pickled[info.file] = load_pickled(path)
        return self._pickled[info.file][info.stored_name]

    def rows(self, name: str) -> "Rows":
        """The same; rows of a mapped tensor are read when they are asked for."""
        return self.read(name)

    @cached_property
    def _pickled(self) -> dict[str, Mapping[str, "Tensor"]]:
        """State dicts of the .bin files read so far, as opening one takes long."""
        return {}


def open_checkpoint(path: Path) -> Checkpoint:
    """List a checkpoint's tensors and check them against its config.

    Raises:
        CheckpointError: files are missing or damaged, or tensors are missing, unexpected or
            misshapen; each is named.
        ConfigError: its config is not FastVLM's.
    """
    checkpoint = scan_checkpoint(path)
    if checkpoint.problems:
        listing = "\n".join(f"  {problem}" for problem in checkpoint.problems)
        raise CheckpointError(
            f"{path}: the tensors are not those its config.json promises:\n{listing}",
            hint="is config.json from the same checkpoint as the weights?",
        )
    return checkpoint


def scan_checkpoint(path: Path) -> Checkpoint:
    """Like `open_checkpoint`, but tensor problems are listed in the result, not raised."""
    config = load_config(path)
    stored: dict[str, TensorInfo] = {}
    for file in find_weight_files(path):
        stored |= scan_file(file)
    expected = expected_tensors(config)
    tensors: dict[str, TensorInfo] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for name, shape in expected.items():
        layout_name = to_layout(name, config.layout)
        info = None if layout_name is None else stored.pop(layout_name, None)
        if info is None:
            if not is_optional(name):
                missing.append(name)
            continue
        tensors[name] = info
        if info.shape != shape:
            misshapen.append(f"{name} is {list(info.shape)}, expected {list(shape)}")
    return Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
        problems=(
            *_summary("missing", missing),
            *_summary("unexpected", sorted(stored)),
            *_summary("misshapen", misshapen),
        ),
    )


def _summary(kind: str, items: list[str]) -> list[str]:
    lines = [f"{kind}: {item}" for item in items[:_NUM_NAMED]]
    if len(items) > _NUM_NAMED:
        lines.append(f"{kind}: and {len(items) - _NUM_NAMED} more")
    return lines
