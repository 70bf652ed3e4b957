"""The three ONNX graphs, run in onnxruntime, against the goldens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from reference.prompt import PromptTokenizer
from validation.component_parity import measure_embed_tokens, measure_vision_encoder
from validation.decoder_parity import DecoderContract, measure_decoder
from validation.end_to_end_parity import measure_generations, measure_task
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.progress import Progress, Steps
from validation.runtimes.base import Floats, Runtime
from validation.runtimes.checked import CheckedRuntime
from validation.runtimes.onnx_decoder import NotADecoderError
from validation.runtimes.onnx_graph import OnnxGraph
from validation.runtimes.onnx_signatures import (
    decoder_signature,
    embed_tokens_signature,
    vision_encoder_signature,
)
from validation.runtimes.onnxruntime_runtime import OnnxRuntime
from validation.runtimes.remembering import RememberingRuntime
from validation.signature import Signature, signature_problems
from validation.tally import Tally
from validation.tensor_parity import Comparison, Tolerance

COMPONENTS = ("vision_encoder", "embed_tokens", "decoder")
_AGAIN = ("vision_encoder_conversion", "embed_tokens_conversion", "decoder_precision")


@dataclass(frozen=True, kw_only=True)
class OnnxParity:
    """How graphs are measured.

    Attributes:
        variant: the name under which the measurements are filed.
        logits: what the decoder was built to return.
        tolerance: for the smallest passing tolerances.
        left_padding: whether the decoder takes sequences of different lengths at once.
        dequantized: what the reference with the same quantized weights returned; None where
            nothing is quantized.
    """

    variant: str
    logits: Literal["last", "full"]
    tolerance: Tolerance
    left_padding: bool = True
    dequantized: Goldens | None = None


def measure_onnx(
    config: OnnxParity,
    *,
    goldens: Goldens,
    runtime: OnnxRuntime,
    tokenizer: PromptTokenizer,
    progress: Progress,
) -> tuple[Measurement, ...]:
    """Every component alone on golden inputs, then the whole from pixels to tokens.

    A component that breaks its contract or cannot run gives a failed structural measurement; the
    others are measured all the same. Where weights are quantized every component is measured once
    more as `<component>_conversion`, against the reference with the same quantized weights; for
    the decoder that is `decoder_precision`, and its conversion is what is left of it when no
    activation is rounded to integers (`OnnxRuntime.exact`).

    Raises:
        GraphError: a graph is missing or cannot be opened.
        GoldenError: the goldens are damaged.
    """
    index = goldens.index
    scenes = {question.scene_id for question in index.questions}
    passes = 1 if config.dequantized is None else 3
    num_alone = len(index.image_ids) + 1
    num_parts = min(passes, 2) * num_alone + (passes + 1) * len(index.cases)
    steps = Steps(progress, num_parts + len(scenes))
    comparison = Comparison(goldens=goldens, tolerance=config.tolerance, steps=steps)
    tallies = _tallies(config, runtime, COMPONENTS)
    images = RememberingRuntime(runtime)
    features = _measure_components(comparison, config, runtime, images, tallies)
    again: list[Tally] = []
    if config.dequantized is not None:
        again = _tallies(config, runtime, _AGAIN)
        quantized = replace(comparison, goldens=config.dequantized)
        _measure_components(quantized, config, runtime, images, again)
    (whole,) = _tallies(config, runtime, ["end_to_end"])
    checked = CheckedRuntime(runtime, goldens.shape)
    measure_generations(comparison, checked, whole, features)
    not_run = measure_task(comparison, checked, whole, tokenizer)
    if config.dequantized is not None:
        runtime.close("decoder")  # before its copy is opened
        quantized = replace(comparison, goldens=config.dequantized)
        not_run += _measure_exactly(quantized, config, runtime, again)
    steps.end()
    measured = (tally.measurements() for tally in (*tallies, *again, whole))
    return (*(each for group in measured for each in group), *not_run)


def _tallies(config: OnnxParity, runtime: OnnxRuntime, components: Sequence[str]) -> list[Tally]:
    return [
        Tally(target="onnx", variant=config.variant, component=name, executor=runtime.executor)
        for name in components
    ]


def _measure_components(
    comparison: Comparison,
    config: OnnxParity,
    runtime: OnnxRuntime,
    images: Runtime,
    tallies: Sequence[Tally],
) -> dict[str, Floats]:
    """The three graphs alone, `images` being the same runtime with a memory; returns the features
    of each image, for the whole's own answers."""
    vision, embedding, decoder = tallies
    shape = comparison.goldens.shape
    _check(vision, runtime.vision_graph, vision_encoder_signature(shape))
    batched = _is_batched(runtime.vision_graph)
    features = measure_vision_encoder(comparison, images, vision, batched=batched)
    runtime.close("vision_graph")  # what it needs for its activations it keeps while it is open
    _check(embedding, runtime.embed_graph, embed_tokens_signature(shape))
    measure_embed_tokens(comparison, runtime, embedding)
    _measure_decoder(comparison, config, runtime, decoder)
    return features


def _measure_decoder(
    comparison: Comparison, config: OnnxParity, runtime: OnnxRuntime, tally: Tally
) -> None:
    try:
        decoder = runtime.decoder
    except NotADecoderError as error:
        tally.structure((error.message,), case="graph")
        return
    expected = decoder_signature(comparison.goldens.shape, logits=config.logits)
    _check(tally, decoder.graph, expected)
    contract = DecoderContract(
        logits=config.logits, left_padding=config.left_padding and _is_batched(decoder.graph)
    )
    measure_decoder(comparison, contract, decoder, tally)


def _measure_exactly(
    comparison: Comparison, config: OnnxParity, runtime: OnnxRuntime, tallies: list[Tally]
) -> tuple[Measurement, ...]:
    """The decoder once more without rounded activations, for `tallies`; or what was not run."""
    exact = runtime.exact()
    (tally,) = _tallies(config, exact, ["decoder_conversion"])
    if find_spec("onnx") is None:
        return tally.not_run(("relative_l2",), "needs onnx, which is not installed")
    _measure_decoder(comparison, config, exact, tally)
    tallies.append(tally)
    return ()


def _check(tally: Tally, graph: OnnxGraph, expected: Signature) -> None:
    tally.structure(signature_problems(expected, graph.signature), case=graph.path.name)


def _is_batched(graph: OnnxGraph) -> bool:
    """Whether the batch is a symbol; a fixed one is already a broken contract."""
    return all(isinstance(port.dims[0], str) for port in graph.signature.inputs if port.dims)
