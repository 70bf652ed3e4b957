"""Writes a LoRA fine-tune as the whole checkpoint that it stands for, tensor by tensor.

`W + scale * B @ A` in float32, rounded once to the type that the base is stored in. Source: LoRA,
arXiv 2106.09685, section 4.1; rank-stabilised, arXiv 2312.03732.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.adapter.fine_tune import FineTune, open_fine_tune
from fastvlm_compile.adapter.folder import base_of
from fastvlm_compile.checkpoint.safetensors_writer import Blocks, TensorSpec
from fastvlm_compile.checkpoint.shards import plan_shards, write_shards
from fastvlm_compile.checkpoint.small_files import carry_over
from fastvlm_compile.progress import Progress
from reference.checkpoint.names import to_layout
from reference.checkpoint.raw import RawReader
from reference.checkpoint.storage import TensorInfo, load_pickled, read_tensor
from reference.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_SMALL_FILES_BYTES = 20_000_000


def open_adapter(folder: Path, base: Path | None) -> FineTune:
    """Open an adapter over the base that was chosen, or that it names; see `open_fine_tune`."""
    return open_fine_tune(folder, base_of(folder, base))


def merged_size_bytes(fine_tune: FineTune) -> int:
    """Disk space that the merged checkpoint needs, rounded up."""
    weights = sum(info.size_bytes for info in fine_tune.base.tensors.values())
    return weights + _SMALL_FILES_BYTES


def write_merged(fine_tune: FineTune, out: Path, progress: Progress) -> None:
    """Write the merged checkpoint, in the base's layout, into the existing directory `out`.

    Tokenizer and processor files are the base's, as LLaVA takes them.

    Args:
        fine_tune: opened, so its tensors fit.
        out: exists and is empty.
        progress: told of each tensor.

    Raises:
        CheckpointError: a merged value is not finite in the base's type; names the tensor.
        PromptError: the base's tokenizer cannot be used.
    """
    base = fine_tune.base
    placed: dict[str, str] = {}
    for name in base.tensors:
        target = to_layout(name, base.layout)
        if target is not None:
            placed[target] = name
    specs = [
        TensorSpec(name=target, dtype=base.tensors[name].dtype, shape=base.tensors[name].shape)
        for target, name in placed.items()
    ]
    merger = _Merger(fine_tune)

    def blocks(tensor: TensorSpec) -> Blocks:
        return merger.blocks(placed[tensor.name])

    shutil.copyfile(fine_tune.config_folder / "config.json", out / "config.json")
    write_shards(out, plan_shards(specs), blocks, progress)
    carry_over(base.path, out, fine_tune.config, base.layout)


class _Merger:
    """The values of each merged tensor; unchanged ones are copied as they are stored."""

    def __init__(self, fine_tune: FineTune) -> None:
        self._tune = fine_tune
        self._reader = RawReader(fine_tune.base.path)
        self._pickled: dict[str, Mapping[str, Tensor]] = {}

    def blocks(self, name: str) -> Blocks:
        """The values of the tensor `name` (canonical)."""
        tune = self._tune
        if name not in tune.pairs and name not in tune.replaced:
            return self._reader.blocks(tune.base.tensors[name])
        return [_to_bytes(self._changed(name))]

    def _changed(self, name: str) -> "Tensor":
        import torch

        tune = self._tune
        weight = tune.base.read(name)
        if name in tune.replaced:
            source = tune.replaced[name]
            values = self._read(source)
        else:
            pair = tune.pairs[name]
            source = pair.a
            change = self._read(pair.b).float() @ self._read(pair.a).float()
            values = weight.float() + tune.adapter.scale * change
        merged = values.to(weight.dtype)
        if not bool(torch.isfinite(merged).all()):
            raise CheckpointError(
                f"{tune.folder / source.file}: with {source.stored_name!r}, {name} has values "
                f"that {tune.base.tensors[name].dtype} cannot hold, or that are not finite"
            )
        return merged

    def _read(self, info: TensorInfo) -> "Tensor":
        path = self._tune.folder / info.file
        if path.suffix != ".bin":
            return read_tensor(path, info.stored_name)
        if info.file not in self._pickled:
            self._pickled[info.file] = load_pickled(path)
        return self._pickled[info.file][info.stored_name]


def _to_bytes(tensor: "Tensor") -> bytes:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
