"""The three ONNX graphs of a bundle behind the `Runtime` interface. Never imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from validation.runtimes.base import Floats, Ids
from validation.runtimes.onnx_decoder import OnnxDecoder, OnnxSession
from validation.runtimes.onnx_graph import GraphError, OnnxGraph, executor_name


@dataclass(frozen=True, kw_only=True)
class GraphPaths:
    """Where the three `.onnx` files are."""

    vision_encoder: Path
    embed_tokens: Path
    decoder_model_merged: Path


def graphs_in_stages(
    inputs: Mapping[str, Path], *, suffix: str = "", vision_suffix: str = ""
) -> GraphPaths:
    """The graphs in directories by the graph's name; the tower may be of another variant."""
    return GraphPaths(
        vision_encoder=inputs["vision_encoder"] / f"vision_encoder{vision_suffix}.onnx",
        embed_tokens=inputs["embed_tokens"] / f"embed_tokens{suffix}.onnx",
        decoder_model_merged=(
            inputs["decoder_model_merged"] / f"decoder_model_merged{suffix}.onnx"
        ),
    )


class OnnxRuntime:
    """Runs the graphs on the CPU; each is opened when it is first needed.

    Args:
        paths: the graphs.
        threads: inside one operator; 0 lets onnxruntime choose.
        exact: compute the decoder's MatMulNBits in float32; see `OnnxGraph`.
        lean: take no memory for the weights of a decoder that is not quantized; see `OnnxGraph`.
        brief_vision: the tower is closed before long, and gives back what it took; see `OnnxGraph`.

    Raises:
        GraphError: a file is missing (at once), damaged or not what its name promises (when it is
            first needed).
    """

    executed_by_core_ml = False

    def __init__(
        self,
        paths: GraphPaths,
        *,
        threads: int = 0,
        exact: bool = False,
        lean: bool = False,
        brief_vision: bool = False,
    ) -> None:
        self._paths = paths
        self._threads = threads
        self._exact = exact
        self._lean = lean
        self._brief_vision = brief_vision
        for path in (paths.vision_encoder, paths.embed_tokens, paths.decoder_model_merged):
            if not path.is_file():
                raise GraphError(
                    f"{path}: there is no such graph",
                    hint="give the folder of a bundle that was built with the onnx target",
                )

    @property
    def executor(self) -> str:
        """`onnxruntime 1.31.1 (CPUExecutionProvider)`, `(..., float32)` where it is exact."""
        return executor_name(exact=self._exact)

    def exact(self) -> "OnnxRuntime":
        """The same graphs without activations that the decoder rounds to integers."""
        return OnnxRuntime(self._paths, threads=self._threads, exact=True)

    @cached_property
    def vision_graph(self) -> OnnxGraph:
        """`vision_encoder`."""
        path = self._paths.vision_encoder
        return OnnxGraph(path, threads=self._threads, brief=self._brief_vision)

    @cached_property
    def embed_graph(self) -> OnnxGraph:
        """`embed_tokens`."""
        return OnnxGraph(self._paths.embed_tokens, threads=self._threads)

    @cached_property
    def decoder(self) -> OnnxDecoder:
        """`decoder_model_merged`."""
        path = self._paths.decoder_model_merged
        return OnnxDecoder(
            OnnxGraph(path, threads=self._threads, exact=self._exact, lean=self._lean)
        )

    def close(self, graph: Literal["vision_graph", "decoder"]) -> None:
        """Let go of a graph and its memory; it is opened anew when it is needed."""
        self.__dict__.pop(graph, None)

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included."""
        return _only(self.vision_graph, {"pixel_values": pixel_values}, "image_features")

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return _only(self.embed_graph, {"input_ids": input_ids}, "inputs_embeds")

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V], or [B, 1, V] when the graph gives the last position only."""
        cache = self.decoder.empty_cache(inputs_embeds.shape[0])
        return self.decoder.append(inputs_embeds, cache).logits

    def session(self, inputs_embeds: Floats) -> OnnxSession:
        """A new decoding of the prompt [1, L, H]."""
        return OnnxSession(self.decoder, self.embed, inputs_embeds)


def _only(graph: OnnxGraph, feeds: dict[str, np.ndarray], output: str) -> Floats:
    outputs = graph.run(feeds)
    if output not in outputs:
        raise GraphError(
            f"{graph.path.name}: expected the output {output}, found {', '.join(outputs)}"
        )
    return outputs[output].astype(np.float32, copy=False)
