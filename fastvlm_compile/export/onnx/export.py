"""The three graphs of a FastVLM, from an open checkpoint to checked files in a folder."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import (
    decoder_contract,
    embedding_contract,
    vision_contract,
)
from fastvlm_compile.export.onnx.decoder import (
    DECODER,
    EMBEDDING_WEIGHT,
    DecoderEncoding,
    DecoderGraphConfig,
    build_decoder,
)
from fastvlm_compile.export.onnx.embedding import EMBEDDING, build_embedding
from fastvlm_compile.export.onnx.files import SavedGraph, save_graph
from fastvlm_compile.export.onnx.graph import check_opset
from fastvlm_compile.export.onnx.simplify import check_same_outputs, simplify
from fastvlm_compile.export.onnx.vision import VISION, bind, meta_module, trace_vision
from fastvlm_compile.export.onnx.vision_module import bind_vision
from fastvlm_compile.export.onnx.weights import StreamedTensor
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.progress import Progress, silent
from reference.config import VisionConfig

CHECK_BATCH = 2
"""Images in the comparison of the simplified graph: more than one, so that a batch dimension frozen
to a constant shows."""


@dataclass(frozen=True, kw_only=True)
class VisionGraphConfig:
    """What decides the structure of a vision graph."""

    vision: VisionConfig
    hidden_size: int
    """Of the language model, which the projector maps to."""
    opset: int


def export_decoder(
    config: DecoderGraphConfig, source: WeightSource, out: Path, progress: Progress
) -> SavedGraph:
    """Write `decoder_model_merged.onnx` in float32 and check it."""
    check_opset(config.opset)
    model = build_decoder(config, DecoderEncoding.plain(source))
    saved = save_graph(model, out, DECODER, progress)
    check_graph(saved.graph, decoder_contract(config.text, last_only=config.logits == "last"))
    return saved


def export_embedding(
    source: WeightSource, out: Path, progress: Progress, *, opset: int
) -> SavedGraph:
    """Write `embed_tokens.onnx` in float32 and check it."""
    check_opset(opset)
    saved = save_graph(build_embedding(source, opset=opset), out, EMBEDDING, progress)
    hidden_size = source.tensors[EMBEDDING_WEIGHT].shape[1]
    check_graph(saved.graph, embedding_contract(hidden_size))
    return saved


def export_vision(
    config: VisionGraphConfig, source: WeightSource, out: Path, progress: Progress
) -> SavedGraph:
    """Write `vision_encoder.onnx` in float32, and prove that simplifying it changed nothing.

    Raises:
        ExportError: the graph is not what the contract says, or simplification changed its output.
    """
    check_opset(config.opset)
    progress(0, 4, "tracing the vision encoder")
    module = meta_module(config.vision, config.hidden_size)
    weights = bind_vision(module, source)
    traced = trace_vision(module, config.vision, opset=config.opset)
    progress(1, 4, "simplifying")
    simplified = simplify(traced)
    progress(2, 4, "writing")
    saved = save_graph(bind(simplified, weights), out, VISION, _within(progress, 2, 4))
    check_graph(saved.graph, vision_contract(config.vision, config.hidden_size))
    progress(3, 4, "comparing with the graph before simplification")
    _check_simplified(traced, weights, saved, config.vision)
    progress(4, 4, "vision encoder written")
    return saved


def _check_simplified(
    traced: onnx.ModelProto,
    weights: dict[str, StreamedTensor],
    saved: SavedGraph,
    vision: VisionConfig,
) -> None:
    shape = (CHECK_BATCH, 3, vision.image_size, vision.image_size)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory(dir=saved.graph.parent) as folder:
        before = save_graph(bind(traced, weights), Path(folder), VISION, silent)
        check_same_outputs(before.graph, saved.graph, {"pixel_values": pixels})


def _within(progress: Progress, done: int, total: int) -> Progress:
    """Report the steps of one part without moving the whole."""

    at, of = done, total

    def inner(done: int, total: int, what: str) -> None:
        progress(at, of, f"{what} ({done}/{total})")

    return inner
