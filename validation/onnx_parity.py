"""The three ONNX graphs, run in onnxruntime, against the goldens."""

from dataclasses import dataclass
from typing import Literal

from reference.prompt import PromptTokenizer
from validation.component_parity import measure_embed_tokens, measure_vision_encoder
from validation.decoder_parity import DecoderContract, measure_decoder
from validation.end_to_end_parity import measure_generations, measure_task
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.progress import Progress, Steps
from validation.runtimes.checked import CheckedRuntime
from validation.runtimes.onnx_decoder import NotADecoderError
from validation.runtimes.onnx_graph import OnnxGraph
from validation.runtimes.onnx_signatures import (
    decoder_signature,
    embed_tokens_signature,
    vision_encoder_signature,
)
from validation.runtimes.onnxruntime_runtime import OnnxRuntime
from validation.signature import Signature, signature_problems
from validation.tally import Tally
from validation.tensor_parity import Comparison, Tolerance


@dataclass(frozen=True, kw_only=True)
class OnnxParity:
    """How graphs are measured.

    Attributes:
        variant: the name under which the measurements are filed.
        logits: what the decoder was built to return.
        tolerance: for the smallest passing tolerances.
    """

    variant: str
    logits: Literal["last", "full"]
    tolerance: Tolerance


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
    others are measured all the same.

    Raises:
        GraphError: a graph is missing or cannot be opened.
        GoldenError: the goldens are damaged.
    """
    index = goldens.index
    scenes = {question.scene_id for question in index.questions}
    steps = Steps(progress, len(index.image_ids) + 1 + 2 * len(index.cases) + len(scenes))
    tallies = {
        component: Tally(
            target="onnx", variant=config.variant, component=component, executor=runtime.executor
        )
        for component in ("vision_encoder", "embed_tokens", "decoder", "end_to_end")
    }
    shape = goldens.shape
    comparison = Comparison(goldens=goldens, tolerance=config.tolerance, steps=steps)
    _check(tallies["vision_encoder"], runtime.vision_graph, vision_encoder_signature(shape))
    features = measure_vision_encoder(
        comparison,
        runtime,
        tallies["vision_encoder"],
        batched=_is_batched(runtime.vision_graph),
    )
    _check(tallies["embed_tokens"], runtime.embed_graph, embed_tokens_signature(shape))
    measure_embed_tokens(comparison, runtime, tallies["embed_tokens"])
    _measure_decoder(comparison, config, runtime, tallies["decoder"])
    whole = tallies["end_to_end"]
    checked = CheckedRuntime(runtime, shape)
    measure_generations(comparison, checked, whole, features)
    not_run = measure_task(comparison, checked, whole, tokenizer)
    steps.end()
    measured = (tally.measurements() for tally in tallies.values())
    return (*(each for group in measured for each in group), *not_run)


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
    contract = DecoderContract(logits=config.logits, batched=_is_batched(decoder.graph))
    measure_decoder(comparison, contract, decoder, tally)


def _check(tally: Tally, graph: OnnxGraph, expected: Signature) -> None:
    tally.structure(signature_problems(expected, graph.signature), case=graph.path.name)


def _is_batched(graph: OnnxGraph) -> bool:
    """Whether the batch is a symbol; a fixed one is already a broken contract."""
    return all(isinstance(port.dims[0], str) for port in graph.signature.inputs if port.dims)
