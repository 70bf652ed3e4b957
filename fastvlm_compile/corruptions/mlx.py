"""A folder of quantized weights for MLX: `Artifacts`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastvlm_compile.corruptions.artifacts import (
    CorruptionInputError,
    References,
)
from fastvlm_compile.corruptions.fault import Context, Fault
from fastvlm_compile.corruptions.measuring import Measure, measure_both
from fastvlm_compile.corruptions.safetensors_draft import Arrays, SafetensorsDraft, raw
from fastvlm_compile.corruptions.stored import Draft, StoredTensor
from fastvlm_compile.export.mlx.check import check_mlx_integers
from fastvlm_compile.export.mlx.names import LANGUAGE_PREFIX, MlxLayout, module_of, to_mlx
from fastvlm_compile.export.mlx.read import read_mlx
from fastvlm_compile.quantize.tensor import Floats
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS
from validation.component_parity import measure_embed_tokens, measure_vision_encoder
from validation.decoder_parity import compare_rows
from validation.decoder_routes import Rows
from validation.measurement import Measurement
from validation.runtimes.base import Runtime
from validation.tally import Tally
from validation.tensor_parity import Comparison, Where

CONFIG = "config.json"
LAYOUT: MlxLayout = "mlx_vlm"
"""The one that a build ships."""

_WORD_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class MlxArtifacts:
    """A bundle's `mlx/<variant>`.

    Attributes:
        folder: config and weights.
        quantized: the tensors they were made from.
        tied: whether the head is the embedding.
    """

    folder: Path
    quantized: QuantizedWeights
    tied: bool
    target: Literal["mlx"] = "mlx"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Files of weights that hold quantized ones, and the config that tells how."""
        shards = {
            file for name, file in read_mlx(self.folder).files.items() if name.endswith(".scales")
        }
        return (*sorted(shards), CONFIG)

    def draft(self, file: str) -> Draft:
        """See `Artifacts`."""
        if file == CONFIG:
            return ConfigDraft(self.folder / file)
        return SafetensorsDraft(self.folder / file, self._find)

    def faults(self, file: str) -> Iterable[Fault]:
        """Group sizes and bits that the config tells, and the order of bytes in words."""
        if file == CONFIG:
            said = ConfigDraft(self.folder / file).program["quantization"]
            for key, new in (("group_size", 32), ("group_size", 128), ("bits", 4), ("bits", 8)):
                if said[key] != new:
                    yield Fault(
                        kind="quantization in config.json",
                        file=file,
                        where=f"{key} {new}",
                        change=_telling(key, new),
                    )
            return
        for label in SafetensorsDraft(self.folder / file, self._find).tensors:
            yield Fault(
                kind="words in the other byte order",
                file=file,
                where=label,
                change=_reversed(label),
            )

    def check(self, folder: Path, file: str) -> None:
        """See `Artifacts`."""
        del file  # each may spoil what another holds
        check_mlx_integers(folder, self.quantized, LAYOUT)

    def decoded(self, folder: Path, file: str) -> Mapping[str, Floats]:
        """See `Artifacts`."""
        del file
        weights = read_mlx(folder)
        return {name: weights.read(name).dequantize() for name in weights.quantized}

    def components(self, file: str, label: str) -> tuple[str, ...]:
        """See `Artifacts`."""
        if file == CONFIG:
            return tuple(_MEASURES)
        if label and not label.startswith(LANGUAGE_PREFIX):
            return ("vision_encoder",)
        if self._names.get(label) != EMBED_TOKENS:
            return ("decoder",)
        return ("embed_tokens", "decoder") if self.tied else ("embed_tokens",)

    def measure(
        self, folder: Path, components: Sequence[str], references: References
    ) -> Iterable[Measurement]:
        """See `Artifacts`; in mlx, in float32 arithmetic."""
        from validation.runtimes.mlx_runtime import open_mlx

        return measure_both("mlx", open_mlx(folder), components, references, _MEASURES)

    @cached_property
    def _names(self) -> dict[str, str]:
        """Canonical names by those in the folder."""
        found = {to_mlx(name, LAYOUT): name for name in self.quantized.entries}
        return {stored: name for stored, name in found.items() if stored is not None}

    def _find(self, arrays: Arrays, header: dict[str, Any]) -> Mapping[str, StoredTensor]:
        del header
        found = {}
        for stored, name in self._names.items():
            if stored in arrays:
                module = module_of(stored)
                found[stored] = StoredTensor(
                    label=stored,
                    names=(name,),
                    bits=self.quantized.entries[name].scheme.bits,
                    codes=raw(arrays[stored]),
                    scales=arrays[f"{module}.scales"],
                    biases=arrays[f"{module}.biases"],
                )
        return found


def open_mlx_folder(folder: Path, quantized: QuantizedWeights, *, tied: bool) -> MlxArtifacts:
    """The weights of a folder.

    Raises:
        MlxFileError: it is none, or damaged.
        CorruptionInputError: nothing in it is quantized.
    """
    if not read_mlx(folder).quantized:
        raise CorruptionInputError(f"{folder}: nothing in it is quantized")
    return MlxArtifacts(folder=folder, quantized=quantized, tied=tied)


class ConfigDraft:
    """A `Draft` of `config.json`; it has no tensors.

    Args:
        path: of the file.
    """

    tensors: Mapping[str, StoredTensor] = {}

    def __init__(self, path: Path) -> None:
        self.program: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """See `Draft`."""
        path.write_text(json.dumps(self.program), encoding="utf-8")


def _telling(key: str, new: int) -> Callable[[Draft, Context], str]:
    def change(draft: Draft, context: Context) -> str:
        del context
        old = draft.program["quantization"][key]
        draft.program["quantization"][key] = new
        return f"{old} -> {new}"

    return change


def _reversed(label: str) -> Callable[[Draft, Context], str]:
    def change(draft: Draft, context: Context) -> str:
        del context
        codes = draft.tensors[label].codes
        codes[...] = codes.reshape(-1, _WORD_BYTES)[:, ::-1].reshape(-1).copy()
        return ""

    return change


def _measure_vision(comparison: Comparison, runtime: Runtime, tally: Tally) -> None:
    measure_vision_encoder(comparison, runtime, tally, batched=False)


def _measure_decoder(comparison: Comparison, runtime: Runtime, tally: Tally) -> None:
    for case in comparison.goldens.index.cases:
        embeds = comparison.goldens.inputs_embeds(case)
        logits = np.asarray(runtime.logits(embeds[None])[0])
        rows = Rows(first=len(embeds) - len(logits), logits=logits)
        compare_rows(comparison, tally, Where(case=case.id), case=case, rows=rows)


_MEASURES: Mapping[str, Measure[Runtime]] = {
    "vision_encoder": _measure_vision,
    "embed_tokens": measure_embed_tokens,
    "decoder": _measure_decoder,
}
