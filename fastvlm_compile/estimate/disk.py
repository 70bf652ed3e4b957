"""Bytes of what a stage writes: the same arithmetic that its files follow."""

import math
from collections.abc import Callable, Mapping

from fastvlm_compile.estimate.inputs import (
    QUESTIONS_PER_SCENE,
    Inputs,
    calibration_inputs,
    golden_inputs,
)
from fastvlm_compile.estimate.job import Job, encoded_bytes
from fastvlm_compile.estimate.model import LANGUAGE, ModelPart
from fastvlm_compile.recipe import Precision
from fastvlm_compile.stages.coreml import CoreMLVisionConfig
from fastvlm_compile.stages.coreml_compressed import CompressConfig, CoreMLPart
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
)
from fastvlm_compile.stages.mlx import MlxConfig
from fastvlm_compile.stages.onnx_variants import OnnxVariantLanguageConfig
from fastvlm_compile.stages.parity import CoreMLParityConfig
from reference.checkpoint.names import HEAD_PROJECTION

_FLOAT = 4
_WIDTH: Mapping[Precision, int] = {"float16": 2, "float32": 4}

_TOKENIZER_BYTES_A_ROW = 90
"""Of a vocabulary, in the files that say the same thing in two ways."""
_REPORT_BYTES = 22_000
_GRAPH_BYTES = 25_000
"""An ONNX graph without its weights; that of a tower has more nodes."""
_TOWER_GRAPH_BYTES = 220_000
_PACKAGE_BYTES = 180_000
"""A Core ML package without its weights."""
_HEADER_BYTES = 550
"""Beside the arrays of one quantized tensor: the file's header, the index's entry."""
_MAX_LOGITS = 4_000_000
"""Values that are kept of a case (`validation.goldens.MAX_LOGIT_VALUES`)."""
_MAX_ROWS = 2_000_000
"""Values that are kept of the embedding."""
_SCENE_PIXELS = 256 * 256
"""Of a rendered scene, which is kept as it is."""
_CACHED_STEPS = 34
"""Positions whose logits Core ML's float32 packages leave for the float16 ones."""

_COREML_PARTS: Mapping[CoreMLPart, tuple[ModelPart, ...]] = {
    "vision": ("tower",),
    "projector": ("projector",),
    "embedding": ("embedding",),
    "decoder": ("layers", "head"),
}


def disk_bytes(job: Job) -> float:
    """Bytes of the stage's output folder."""
    return _FORMULAS[job.kind.partition(".")[0]](job)


def _synthesized(job: Job) -> float:
    rows = job.facts.config.text.vocab_size
    return job.facts.stored_bytes + 30 * rows  # vocabulary and merges


def _merged(job: Job) -> float:
    return job.facts.stored_bytes + _tokenizer(job)


def _tokenizer(job: Job) -> float:
    return _TOKENIZER_BYTES_A_ROW * job.facts.config.text.vocab_size


def _golden(job: Job) -> float:
    text, cases = job.facts.config.text, golden_inputs(job.recipe, max_questions=0)
    kept = 3 * _FLOAT * cases.pixels + cases.positions * text.hidden_size * _FLOAT
    questions = job.recipe.goldens.task_questions / QUESTIONS_PER_SCENE
    scenes = questions * 3 * _SCENE_PIXELS  # a byte a channel
    return kept + scenes + _features(job) + _logits(job, cases) + _rows(job)


def _features(job: Job) -> float:
    """Of the images: what the tower gives, and what the projector makes of it."""
    vision, text = job.facts.config.vision, job.facts.config.text
    tokens = golden_inputs(job.recipe, max_questions=0).pixels / 64**2
    return tokens * (vision.out_channels + text.hidden_size) * _FLOAT


def _logits(job: Job, cases: Inputs) -> float:
    vocabulary = job.facts.config.text.vocab_size
    mean = cases.positions / cases.num_cases
    return cases.num_cases * min(_MAX_LOGITS, mean * vocabulary) * _FLOAT


def _rows(job: Job) -> float:
    text = job.facts.config.text
    return min(_MAX_ROWS, text.vocab_size * text.hidden_size) * _FLOAT


def _calibration(job: Job) -> float:
    inputs = calibration_inputs(job.recipe)
    return 3 * _FLOAT * inputs.pixels + _REPORT_BYTES


def _quantized(job: Job) -> float:
    """Scales and tables are kept in float16, as Core ML has them."""
    storage, chosen = job.storage(), job.chosen()
    return encoded_bytes("coreml", storage, chosen, other=0) + _HEADER_BYTES * len(chosen)


def _report(job: Job) -> float:
    del job
    return _REPORT_BYTES


def _reference_parity(job: Job) -> float:
    cases = golden_inputs(job.recipe, max_questions=0)
    projected = cases.pixels / 64**2 * job.facts.config.text.hidden_size * _FLOAT
    return projected + _features(job) + _logits(job, cases) + _rows(job) + _REPORT_BYTES


def _coreml_parity(job: Job) -> float:
    config = job.stage.config
    assert isinstance(config, CoreMLParityConfig)
    if config.precision != "float32":
        return _REPORT_BYTES
    logits = 0.0
    if "decoder" in job.stage.inputs:
        steps = golden_inputs(job.recipe, max_questions=0).num_cases * _CACHED_STEPS
        logits = steps * job.facts.config.text.vocab_size * _FLOAT
    return logits + _features(job) + _REPORT_BYTES


def _onnx_vision(job: Job) -> float:
    return _FLOAT * job.facts.numbers("tower", "projector") + _TOWER_GRAPH_BYTES


def _onnx_vision_half(job: Job) -> float:
    return 2 * job.facts.numbers("tower", "projector") + _TOWER_GRAPH_BYTES


def _onnx_vision_int8(job: Job) -> float:
    tensors = job.facts.tensors("tower", "projector")
    return encoded_bytes("onnx", job.storage(), tensors, other=_FLOAT) + 2 * _TOWER_GRAPH_BYTES


def _onnx_embedding(job: Job) -> float:
    return _FLOAT * job.facts.numbers("embedding")


def _onnx_decoder(job: Job) -> float:
    text = job.facts.config.text
    rotary = text.max_position_embeddings * text.head_dim
    return _FLOAT * (job.facts.numbers("layers", "head") + rotary) + _GRAPH_BYTES


def _onnx_language(job: Job) -> float:
    config = job.stage.config
    assert isinstance(config, OnnxVariantLanguageConfig)
    other = 2 if config.variant == "fp16" else _FLOAT
    parts: tuple[ModelPart, ...] = ("layers", "head")
    if not (config.share_tied and job.facts.tied):
        parts = LANGUAGE
    text = job.facts.config.text
    rotary = config.context_length * text.head_dim * _FLOAT
    tensors = job.facts.tensors(*parts)
    return encoded_bytes("onnx", job.storage(), tensors, other=other) + rotary + _GRAPH_BYTES


def _onnx_genai(job: Job) -> float:
    del job
    return _TOWER_GRAPH_BYTES


def _coreml(job: Job) -> float:
    config = job.stage.config
    if isinstance(config, CoreMLVisionConfig | CoreMLProjectorConfig):
        part: ModelPart = "tower" if isinstance(config, CoreMLVisionConfig) else "projector"
        functions = 1 + len(config.image_sizes)
        package = _PACKAGE_BYTES * functions if part == "tower" else _GRAPH_BYTES
        return _WIDTH[config.precision] * job.facts.numbers(part) + package
    if isinstance(config, CoreMLEmbeddingConfig):
        return _WIDTH[config.precision] * job.facts.numbers("embedding")
    assert isinstance(config, CoreMLDecoderConfig), job.stage.name
    numbers = job.facts.numbers("layers", "head")
    return _WIDTH[config.precision] * (numbers + _rotary(job)) + _PACKAGE_BYTES


def _rotary(job: Job) -> float:
    """Numbers of the tables that each package has."""
    return job.num_chunks * job.recipe.context_length * job.facts.config.text.head_dim


def _coreml_compressed(job: Job) -> float:
    config = job.stage.config
    assert isinstance(config, CompressConfig)
    tensors = job.facts.tensors(*_COREML_PARTS[config.part])
    encoded = encoded_bytes("coreml", job.storage(), tensors, other=2)
    if config.part == "embedding":
        return encoded
    if config.part == "decoder":
        return encoded + 2 * _rotary(job) + _PACKAGE_BYTES
    return encoded + (_PACKAGE_BYTES if config.part == "vision" else _GRAPH_BYTES)


def _mlx(job: Job) -> float:
    config = job.stage.config
    assert isinstance(config, MlxConfig)
    parts: tuple[ModelPart, ...] = ("projector", *LANGUAGE)
    if job.facts.tied:
        parts = ("projector", "layers", "embedding")
    unique = job.facts.tensors(*parts)
    language = encoded_bytes("mlx", job.storage(), unique, other=2)
    if config.layout == "apple_app":
        return language
    unused = math.prod(job.facts.shapes.get(HEAD_PROJECTION, (0,)))  # which mlx-vlm asks for
    return language + _WIDTH[config.tower_dtype] * (job.facts.numbers("tower") + unused)


def _torch(job: Job) -> float:
    return job.facts.stored_bytes


_FORMULAS: Mapping[str, Callable[[Job], float]] = {
    "checkpoint:synthesize": _synthesized,
    "merge:merge": _merged,
    "checkpoint:inspect": _tokenizer,
    "checkpoint:torch_weights": _torch,
    "golden:golden": _golden,
    "quantize:calibration": _calibration,
    "quantize:quantize": _quantized,
    "mixed:sensitivity": _report,
    "mixed:policy": _report,
    "mixed:quantize": _quantized,
    "onnx:vision_encoder": _onnx_vision,
    "onnx:embed_tokens": _onnx_embedding,
    "onnx:decoder_model_merged": _onnx_decoder,
    "onnx_variants:vision_half": _onnx_vision_half,
    "onnx_variants:vision_int8": _onnx_vision_int8,
    "onnx_variants:language_half": _onnx_language,
    "onnx_variants:language": _onnx_language,
    "onnx_genai:graphs": _onnx_genai,
    "coreml:vision": _coreml,
    "coreml_language:projector": _coreml,
    "coreml_language:embedding": _coreml,
    "coreml_language:decoder": _coreml,
    "coreml_compressed:compress": _coreml_compressed,
    "mlx:export": _mlx,
    "parity:reference": _reference_parity,
    "parity:onnx": _report,
    "parity:coreml": _coreml_parity,
    "parity:mlx": _report,
}
"""By the stage's function."""
