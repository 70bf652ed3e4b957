"""ONNX graphs of quantized weights: `Artifacts`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from fastvlm_compile.corruptions.artifacts import (
    CorruptionInputError,
    NotTheSameError,
    References,
)
from fastvlm_compile.corruptions.fault import Fault
from fastvlm_compile.corruptions.measuring import Measure, measure_both
from fastvlm_compile.corruptions.onnx_draft import OnnxDraft
from fastvlm_compile.corruptions.onnx_faults import graph_faults
from fastvlm_compile.corruptions.stored import Draft
from fastvlm_compile.export.onnx.check_pairs import check_activation_pairs
from fastvlm_compile.export.onnx.decoder import DECODER, EMBEDDING_WEIGHT, HEAD_WEIGHT
from fastvlm_compile.export.onnx.embedding import EMBEDDING
from fastvlm_compile.export.onnx.export_variants import LAYERS_PREFIX
from fastvlm_compile.export.onnx.read_back import check_same_integers, read_back
from fastvlm_compile.export.onnx.variants import variant_suffix
from fastvlm_compile.export.onnx.vision import VISION
from fastvlm_compile.export.onnx.vision_read import check_vision_integers, read_vision_weights
from fastvlm_compile.quantize.tensor import Floats
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from validation.component_parity import measure_embed_tokens, measure_vision_encoder
from validation.decoder_parity import DecoderContract, measure_decoder
from validation.measurement import Measurement
from validation.runtimes.onnxruntime_runtime import GraphPaths, OnnxRuntime
from validation.tally import Tally
from validation.tensor_parity import Comparison

VISION_VARIANT = "int8"
"""All variants of integers share this tower."""


@dataclass(frozen=True, kw_only=True)
class OnnxArtifacts:
    """A bundle's `onnx/`, seen as one variant.

    Attributes:
        folder: with the three graphs.
        variant: names two of them, the tower is that of all quantized variants.
        quantized: the tensors they were made from.
        tied: whether the head is the embedding.
    """

    folder: Path
    variant: str
    quantized: QuantizedWeights
    tied: bool
    target: Literal["onnx"] = "onnx"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The three graphs."""
        paths = self._paths(self.folder)
        return tuple(
            path.name
            for path in (paths.vision_encoder, paths.embed_tokens, paths.decoder_model_merged)
        )

    def draft(self, file: str) -> Draft:
        """See `Artifacts`."""
        return OnnxDraft(self.folder / file)

    def faults(self, file: str) -> Iterable[Fault]:
        """See `onnx_faults`."""
        return graph_faults(OnnxDraft(self.folder / file), file)

    def check(self, folder: Path, file: str) -> None:
        """See `Artifacts`."""
        try:
            if file.startswith(VISION):
                check_vision_integers(folder / file, self.quantized)
                check_activation_pairs(folder / file)
            else:
                check_same_integers(folder / file, self.quantized, self._expected(file))
        except (ValueError, AssertionError) as error:  # arrays that make no tensor of ours
            raise NotTheSameError(f"{file}: {error}") from None

    def decoded(self, folder: Path, file: str) -> Mapping[str, Floats]:
        """See `Artifacts`."""
        if file.startswith(VISION):
            found = read_vision_weights(folder / file)
        else:
            found = dict(read_back(folder / file, self.quantized.entries))
        return {name: tensor.dequantize() for name, tensor in found.items()}

    def components(self, file: str, label: str) -> tuple[str, ...]:
        """See `Artifacts`."""
        del label  # each graph is one
        return tuple(name for name in _MEASURES if file.startswith(name))

    def measure(
        self, folder: Path, components: Sequence[str], references: References
    ) -> Iterable[Measurement]:
        """See `Artifacts`; in onnxruntime."""
        runtime = OnnxRuntime(self._paths(folder), threads=1)
        return measure_both(
            "onnx", runtime, components, references, _MEASURES, exact=runtime.exact()
        )

    def _paths(self, folder: Path) -> GraphPaths:
        suffix = variant_suffix(self.variant)
        return GraphPaths(
            vision_encoder=folder / f"{VISION}{variant_suffix(VISION_VARIANT)}.onnx",
            embed_tokens=folder / f"{EMBEDDING}{suffix}.onnx",
            decoder_model_merged=folder / f"{DECODER}{suffix}.onnx",
        )

    def _expected(self, file: str) -> list[str]:
        if file.startswith(EMBEDDING):
            return [EMBEDDING_WEIGHT]
        head = EMBEDDING_WEIGHT if self.tied else HEAD_WEIGHT
        names = self.quantized.entries
        return [name for name in names if name.startswith(LAYERS_PREFIX) or name == head]


def open_onnx(
    folder: Path, quantized: QuantizedWeights, *, variant: str, tied: bool
) -> OnnxArtifacts:
    """The graphs of a variant in a folder.

    Raises:
        CorruptionInputError: one is missing.
        UnsupportedExportError: ONNX has no such variant.
    """
    artifacts = OnnxArtifacts(folder=folder, variant=variant, quantized=quantized, tied=tied)
    if missing := [name for name in artifacts.files if not (folder / name).is_file()]:
        raise CorruptionInputError(
            f"{folder}: there is no {', '.join(missing)}",
            hint="give a bundle's `onnx` and the name of a quantized variant that it holds",
        )
    return artifacts


def _measure_vision(comparison: Comparison, runtime: OnnxRuntime, tally: Tally) -> None:
    measure_vision_encoder(comparison, runtime, tally, batched=True)


def _measure_decoder(comparison: Comparison, runtime: OnnxRuntime, tally: Tally) -> None:
    contract = DecoderContract(logits="last", left_padding=False)
    # Positions that the graph does not return are not compared, whichever logits it has.
    rows = runtime.decoder.graph.signature.outputs[0].dims
    if len(rows) == 3 and rows[1] != 1:
        contract = replace(contract, logits="full")
    measure_decoder(comparison, contract, runtime.decoder, tally)


_MEASURES: Mapping[str, Measure[OnnxRuntime]] = {
    VISION: _measure_vision,
    EMBEDDING: measure_embed_tokens,
    "decoder": _measure_decoder,
}
