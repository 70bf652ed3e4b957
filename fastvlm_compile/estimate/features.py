"""What a stage's memory and time follow from: sizes and amounts of work, in large units."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastvlm_compile.estimate.disk import disk_bytes
from fastvlm_compile.estimate.inputs import Inputs, calibration_inputs, golden_inputs
from fastvlm_compile.estimate.job import Job
from fastvlm_compile.quantize.families import CANDIDATES
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.stages.mixed import PolicyConfig, SensitivityConfig
from fastvlm_compile.stages.parity import CoreMLParityConfig, MlxParityConfig
from reference.budget import FEW_RESIDENT_BYTES, RESIDENT_BYTES, resident
from reference.config import Qwen2Config

_GIGA = 1e9
_TERA = 1e12
_FLOAT = 4
_FOUR_BITS = 4.25
"""A number of four bits with its share of a scale."""

_REFERENCES = {
    "golden:golden": (1, RESIDENT_BYTES),
    "parity:reference": (2, FEW_RESIDENT_BYTES),
    "mixed:sensitivity": (1, FEW_RESIDENT_BYTES),
    "mixed:policy": (1, FEW_RESIDENT_BYTES),
}
"""How many streamed references a kind of stage has, and what each may keep in memory."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Of one stage. Names end in their unit: 10^9 bytes, numbers or operations, or 10^12.

    Attributes:
        stored_gb: the checkpoint's tensors as they are stored.
        output_gb: what the stage writes.
        input_gb: what it may read.
        tower_gb: float32 of vision tower and projector.
        language_gb: float32 of embedding, layers and head.
        held_gb: float32 of layers and head that the references it runs hold in memory.
        layer_gb: float32 of one decoder layer.
        tensor_gb: float32 of the largest matrix of the language model.
        chosen_gb: float32 of the largest tensor that the stage quantizes.
        moments_gb: float32 of the largest second moments of inputs, or of the inputs themselves
            where these are few.
        widened_gb: float32 of layers and head that an ONNX file holds in eight bits; onnxruntime's
            CPU widens these anew at each step when it multiplies in float32.
        chunk_gb: float16 of the largest Core ML package of the decoder.
        converted_gb: float16 of the packages of the decoder that are converted, one of a kind.
        cache_gb: float32 of keys and values of the whole context.
        image_gb: float32 of the tower's widest activations, of one image.
        logits_gb: float32 of the logits of the longest prompt.
        vision_tflop: of the tower over all images that the stage runs.
        language_tflop: of the decoder over all positions that the stage runs.
        steps_tb: weights read, token by token, as float32.
        search_g, gptq_g, clustering_g: numbers quantized by each method.
        trials_tflop: of forward passes that try one way to store one tensor.
    """

    stored_gb: float
    output_gb: float
    input_gb: float
    tower_gb: float
    language_gb: float
    held_gb: float
    layer_gb: float
    tensor_gb: float
    chosen_gb: float
    moments_gb: float
    widened_gb: float
    chunk_gb: float
    converted_gb: float
    cache_gb: float
    image_gb: float
    logits_gb: float
    vision_tflop: float
    language_tflop: float
    steps_tb: float
    search_g: float
    gptq_g: float
    clustering_g: float
    trials_tflop: float


FEATURES = tuple(field.name for field in dataclasses.fields(Features))


def features_of(job: Job, written_bytes: Mapping[str, float]) -> Features:
    """The features of a stage.

    Args:
        job: the stage.
        written_bytes: what each stage before it writes, by name.
    """
    facts, text = job.facts, job.facts.config.text
    run = _run_by(job)
    read = [written_bytes.get(name, facts.stored_bytes) for name in job.stage.inputs.values()]
    by_method = _numbers_by_method(job)
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    first = facts.config.vision.widths[0]
    language_bytes = _FLOAT * facts.numbers("layers", "head")
    longest = run.positions / run.num_cases if run.num_cases else 0.0
    return Features(
        stored_gb=facts.stored_bytes / _GIGA,
        output_gb=disk_bytes(job) / _GIGA,
        input_gb=sum(read) / _GIGA,
        tower_gb=_FLOAT * facts.numbers("tower", "projector") / _GIGA,
        language_gb=_FLOAT * facts.numbers("embedding", "layers", "head") / _GIGA,
        held_gb=_held_bytes(job) / _GIGA,
        layer_gb=_FLOAT * facts.numbers("layers") / text.num_hidden_layers / _GIGA,
        tensor_gb=_FLOAT * facts.largest_tensor / _GIGA,
        chosen_gb=_FLOAT * max(map(math.prod, job.chosen().values()), default=0) / _GIGA,
        moments_gb=_FLOAT * _moments(text, round(run.positions)) / _GIGA,
        widened_gb=language_bytes * _eight_bit_share(job) / _GIGA,
        chunk_gb=job.chunk_bytes / _GIGA,
        converted_gb=job.converted_bytes / _GIGA,
        cache_gb=_FLOAT * kept * job.recipe.context_length / _GIGA,
        image_gb=_FLOAT * first * (job.recipe.image.size / 2) ** 2 / _GIGA,
        logits_gb=_FLOAT * longest * text.vocab_size / _GIGA,
        vision_tflop=run.vision_flop(facts) / _TERA,
        language_tflop=run.language_flop(facts) / _TERA,
        steps_tb=run.steps * language_bytes / _TERA,
        search_g=by_method.get("search", 0) / _GIGA,
        gptq_g=by_method.get("gptq", 0) / _GIGA,
        clustering_g=by_method.get("clustering", 0) / _GIGA,
        trials_tflop=_trials_flop(job) / _TERA,
    )


def _held_bytes(job: Job) -> float:
    """What fits the budget of each reference stays, and one part of the rest is there at a time."""
    num_models, budget = _REFERENCES.get(job.kind, (0, 0))
    facts = job.facts
    head = _FLOAT * facts.numbers("head")
    layer = _FLOAT * facts.numbers("layers") / facts.config.text.num_hidden_layers
    sizes = [layer] * facts.config.text.num_hidden_layers + [head]
    parts = list(zip(sizes, resident(sizes, budget), strict=True))
    held = sum(size for size, stays in parts if stays)
    beyond = max((size for size, stays in parts if not stays), default=0.0)
    return num_models * (held + beyond)


def _moments(text: Qwen2Config, num_rows: int) -> int:
    """Numbers in them, of whichever linear has the most."""
    return max(
        num_rows * size if 2 * num_rows <= size else size**2
        for size in (text.hidden_size, text.intermediate_size)
    )


def _run_by(job: Job) -> Inputs:
    """What the stage runs through the model."""
    config = job.stage.config
    if job.kind == "golden:golden" or job.kind.startswith("parity:"):
        if isinstance(config, MlxParityConfig):
            return golden_inputs(
                job.recipe, max_questions=config.max_questions, max_images=config.max_images
            )
        if isinstance(config, CoreMLParityConfig):
            return golden_inputs(job.recipe, max_questions=config.max_questions)
        return golden_inputs(job.recipe)
    if "calibration" in job.stage.inputs or job.kind == "quantize:calibration":
        return calibration_inputs(job.recipe)
    return Inputs(pixels=0, num_images=0, num_cases=0, positions=0, steps=0)


def _eight_bit_share(job: Job) -> float:
    """Of the layers' weights that the parity of an ONNX variant runs, by the mean of mixed ones."""
    if job.kind != "parity:onnx.quantized":
        return 0.0
    how = replace(job, stage=job.stages[job.stage.inputs["reference"]]).storage()["language"]
    if isinstance(how, float | int):
        return min(1.0, max(0.0, how / _FOUR_BITS - 1))
    return float(how.bits == 8)


def _numbers_by_method(job: Job) -> dict[str, int]:
    methods, found = job.methods(), dict[str, int]()
    for name, shape in job.chosen().items():
        method = methods[role_of(name, shape)]
        found[method] = found.get(method, 0) + math.prod(shape)
    return found


def _trials_flop(job: Job) -> float:
    """A candidate runs from its layer to the end, so on average half of the layers."""
    config = job.stage.config
    if not isinstance(config, SensitivityConfig | PolicyConfig):
        return 0.0
    whole = 2.0 * job.facts.numbers("layers", "head") * config.mixed_positions
    if isinstance(config, PolicyConfig):
        return whole
    roles = [role_of(name, shape) for name, shape in job.facts.shapes.items()]
    return whole * roles.count("language") * len(CANDIDATES[config.family]) / 2
