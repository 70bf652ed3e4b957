"""Recipe -> stages, in an order in which each comes after those that it reads from. Pure."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fastvlm_compile.plan_quantize import quantized_stages
from fastvlm_compile.plan_variants import (
    apple_app_stage,
    coreml_compressed,
    mlx_stages,
    onnx_towers,
    onnx_variant,
    onnx_vision_stage,
)
from fastvlm_compile.recipe import CoreMLLanguage, CoreMLTarget, OnnxTarget, Precision, Recipe
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.stages.checkpoint import (
    InspectConfig,
    SynthesizeConfig,
    TorchWeightsConfig,
)
from fastvlm_compile.stages.coreml import CoreMLVisionConfig
from fastvlm_compile.stages.coreml_compressed import CoreMLPart
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
)
from fastvlm_compile.stages.merge import MergeConfig
from fastvlm_compile.stages.onnx import OnnxDecoderConfig, OnnxEmbedConfig, OnnxVisionConfig
from fastvlm_compile.stages.onnx_genai import OnnxGenaiConfig
from fastvlm_compile.stages.parity import CoreMLParityConfig, OnnxParityConfig
from validation.golden_plan import GoldenPlan

WEIGHTS = "weights"
ADAPTER = "adapter"
BASE = "base"
CHECKPOINT = "checkpoint"
GOLDEN = "golden"
TORCH_WEIGHTS = "torch.weights"
ONNX_GENAI = "onnx.genai"
ONNX_GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
COREML_PARTS: tuple[CoreMLPart, ...] = ("vision", "projector", "embedding", "decoder")
"""In the order of use; without `language` the first alone."""

_STAGES = "fastvlm_compile.stages"
_MODEL_TOOLS = ("torch", "numpy", "safetensors")
_ONNX_TOOLS = (*_MODEL_TOOLS, "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")
_COREML_TOOLS = (*_MODEL_TOOLS, "coremltools")

# Config field -> recipe key, to tell a changed key by the name that the user knows.
_SYNTHETIC_KEYS = {name: f"checkpoint.synthetic.{name}" for name in ("size", "seed", "layout")}
_IMAGE_KEYS = {"image_size": "image.size", "fit": "image.fit", "image_position": "image.position"}
_QUANTIZATION_KEYS = {
    "mixed_bits": "quantization.mixed_bits",
    "mixed_positions": "quantization.mixed_positions",
    "max_questions": "goldens.variant_questions",
    "max_images": "goldens.variant_images",
}
_GOLDEN_KEYS = {
    name: f"goldens.{name}"
    for name in ("scenes", "photographs", "prompts", "max_new_tokens", "task_questions")
}
_ONNX_KEYS = {name: f"targets.onnx.{name}" for name in ("logits", "opset", "share_tied")}
_FILL_KEYS = {"context_to_fill": "goldens.fill_context"}
_COREML_KEYS = {
    name: f"targets.coreml.language.{name}" for name in ("prefill_chunk", "max_chunk_mb")
} | {"image_sizes": "targets.coreml.image_sizes"}
_RECIPE_KEYS = {
    **_SYNTHETIC_KEYS,
    **_IMAGE_KEYS,
    **_GOLDEN_KEYS,
    **_FILL_KEYS,
    **_ONNX_KEYS,
    **_COREML_KEYS,
    **_QUANTIZATION_KEYS,
    "context_length": "context_length",
    "tower_dtype": "targets.mlx.tower_dtype",
}


def make_plan(recipe: Recipe, *, weights: Path | None, base: Path | None = None) -> Plan:
    """All stages of a recipe.

    Args:
        recipe: what to build.
        weights: the checkpoint's folder; None for a recipe that synthesizes it.
        base: where `weights` is a LoRA fine-tune, the checkpoint that it is merged into.
    """
    made: tuple[Stage, ...] = ()
    sources: tuple[Source, ...] = ()
    if weights is None:
        made = (_synthesize(recipe),)
    elif base is None:
        sources = (Source(name=WEIGHTS, path=weights),)
    else:
        sources = (Source(name=ADAPTER, path=weights), Source(name=BASE, path=base))
        made = (_merge(),)
    stages = (*made, *_stages(recipe))
    return Plan(
        recipe=recipe.name,
        sources=sources,
        stages=stages,
        recipe_keys={stage.name: _RECIPE_KEYS for stage in stages},
    )


def parity_stages(recipe: Recipe) -> tuple[str, ...]:
    """The stages whose `parity.json` the gates are judged over, in the order of the report."""
    variants = recipe.targets.measured().items()
    return tuple(f"parity.{target}.{name}" for target, names in variants for name in names)


def _stages(recipe: Recipe) -> Iterator[Stage]:
    """All stages that read the weights."""
    yield Stage(
        name=CHECKPOINT,
        function=f"{_STAGES}.checkpoint:inspect",
        config=InspectConfig(image_size=recipe.image.size, context_length=recipe.context_length),
        inputs={"weights": WEIGHTS},
        tools=("tokenizers",),
    )
    yield _golden(recipe)
    if recipe.quantization is not None and recipe.targets.quantized():
        yield from quantized_stages(recipe, recipe.quantization)
    if recipe.targets.onnx is not None:
        yield from _onnx(recipe, recipe.targets.onnx)
    if recipe.targets.coreml is not None:
        yield from _coreml(recipe, recipe.targets.coreml)
    if recipe.targets.mlx is not None:
        yield from mlx_stages(recipe, recipe.targets.mlx)
    if recipe.targets.apple_app is not None:
        yield apple_app_stage(recipe, recipe.targets.apple_app)
    if recipe.targets.torch is not None:
        yield Stage(
            name=TORCH_WEIGHTS,
            function=f"{_STAGES}.checkpoint:torch_weights",
            config=TorchWeightsConfig(),
            inputs={"weights": WEIGHTS},
            tools=_MODEL_TOOLS,
        )


def _synthesize(recipe: Recipe) -> Stage:
    synthetic = recipe.checkpoint.synthetic
    assert synthetic is not None, "only a synthetic checkpoint has no folder"
    return Stage(
        name=WEIGHTS,
        function=f"{_STAGES}.checkpoint:synthesize",
        config=SynthesizeConfig(size=synthetic.size, seed=synthetic.seed, layout=synthetic.layout),
        inputs={},
        tools=("numpy", "ml-dtypes", "tokenizers"),
    )


def _merge() -> Stage:
    return Stage(
        name=WEIGHTS,
        function=f"{_STAGES}.merge:merge",
        config=MergeConfig(),
        inputs={"adapter": ADAPTER, "base": BASE},
        tools=(*_MODEL_TOOLS, "tokenizers"),
    )


def _golden(recipe: Recipe) -> Stage:
    goldens, image = recipe.goldens, recipe.image
    return Stage(
        name=GOLDEN,
        function=f"{_STAGES}.golden:golden",
        config=GoldenPlan(
            image_size=image.size,
            fit=image.fit,
            image_position=image.position,
            scenes=goldens.scenes,
            photographs=goldens.photographs,
            prompts=goldens.prompts,
            max_new_tokens=goldens.max_new_tokens,
            task_questions=goldens.task_questions,
            context_to_fill=recipe.context_length if goldens.fill_context else 0,
            image_sizes=further_sizes(recipe),
        ),
        inputs={"weights": WEIGHTS, "checkpoint": CHECKPOINT},
        tools=(*_MODEL_TOOLS, "pillow", "tokenizers", "scikit-image"),
        resumable=True,
    )


def further_sizes(recipe: Recipe) -> tuple[int, ...]:
    """What the Core ML packages take beside `image.size`."""
    return () if recipe.targets.coreml is None else recipe.targets.coreml.image_sizes


def _onnx(recipe: Recipe, target: OnnxTarget) -> Iterator[Stage]:
    if "fp32" in target.variants:
        yield from _onnx_fp32(recipe, target)
    yield from onnx_towers(recipe, target)
    for variant in target.variants:
        if variant != "fp32":
            yield from onnx_variant(recipe, target, variant)
    if target.genai is not None:
        yield Stage(
            name=ONNX_GENAI,
            function=f"{_STAGES}.onnx_genai:graphs",
            config=OnnxGenaiConfig(image_size=recipe.image.size),
            inputs={
                "weights": WEIGHTS,
                "checkpoint": CHECKPOINT,
                **{stage: stage for stage in onnx_graph_stages(target)},
            },
            tools=("numpy", "onnx", "onnxruntime", "tokenizers"),
        )


def onnx_graph_stages(target: OnnxTarget) -> tuple[str, ...]:
    """The stages whose files are the graphs of a bundle."""
    plain = [f"onnx.{graph}" for graph in ONNX_GRAPHS] if "fp32" in target.variants else []
    smaller = [variant for variant in target.variants if variant != "fp32"]
    towers = dict.fromkeys(onnx_vision_stage(variant) for variant in smaller)
    return (*plain, *towers, *(f"onnx.language.{variant}" for variant in smaller))


def _onnx_fp32(recipe: Recipe, target: OnnxTarget) -> Iterator[Stage]:
    configs: Mapping[str, object] = {
        "vision_encoder": OnnxVisionConfig(image_size=recipe.image.size, opset=target.opset),
        "embed_tokens": OnnxEmbedConfig(opset=target.opset),
        "decoder_model_merged": OnnxDecoderConfig(opset=target.opset, logits=target.logits),
    }
    for graph in ONNX_GRAPHS:
        yield Stage(
            name=f"onnx.{graph}",
            function=f"{_STAGES}.onnx:{graph}",
            config=configs[graph],
            inputs={"weights": WEIGHTS, "checkpoint": CHECKPOINT},
            tools=_ONNX_TOOLS,
        )
    yield Stage(
        name="parity.onnx.fp32",
        function=f"{_STAGES}.parity:onnx",
        config=OnnxParityConfig(variant="fp32", logits=target.logits),
        inputs={
            "golden": GOLDEN,
            "checkpoint": CHECKPOINT,
            **{graph: f"onnx.{graph}" for graph in ONNX_GRAPHS},
        },
        tools=("onnxruntime", "numpy", "pillow", "tokenizers"),
    )


def coreml_parts(target: CoreMLTarget) -> tuple[CoreMLPart, ...]:
    """What is built of each precision."""
    return COREML_PARTS if target.language is not None else COREML_PARTS[:1]


def _coreml(recipe: Recipe, target: CoreMLTarget) -> Iterator[Stage]:
    for precision in target.converted:
        yield _coreml_part(
            f"coreml.vision.{precision}",
            "coreml:vision",
            CoreMLVisionConfig(
                image_size=recipe.image.size,
                image_sizes=further_sizes(recipe),
                precision=precision,
            ),
        )
        if target.language is not None:
            yield from _coreml_language(recipe, target.language, precision)
    # float16 is also compared with what the float32 packages returned.
    for precision in sorted(target.precisions, key=("float32", "float16").index):
        after = precision == "float16" and "float32" in target.precisions
        yield Stage(
            name=f"parity.coreml.{precision}",
            function=f"{_STAGES}.parity:coreml",
            config=CoreMLParityConfig(variant=precision, precision=precision),
            inputs={
                "golden": GOLDEN,
                "checkpoint": CHECKPOINT,
                **{part: f"coreml.{part}.{precision}" for part in coreml_parts(target)},
                **({"float32": "parity.coreml.float32"} if after else {}),
            },
            tools=("coremltools", "torch", "numpy", "safetensors", "tokenizers"),
            resumable=True,
        )
    for variant in target.compressed:
        yield from coreml_compressed(recipe, variant, coreml_parts(target))


def _coreml_language(
    recipe: Recipe, language: CoreMLLanguage, precision: Precision
) -> Iterator[Stage]:
    yield _coreml_part(
        f"coreml.projector.{precision}",
        "coreml_language:projector",
        CoreMLProjectorConfig(
            image_size=recipe.image.size, image_sizes=further_sizes(recipe), precision=precision
        ),
    )
    yield _coreml_part(
        f"coreml.embedding.{precision}",
        "coreml_language:embedding",
        CoreMLEmbeddingConfig(precision=precision),
    )
    yield _coreml_part(
        f"coreml.decoder.{precision}",
        "coreml_language:decoder",
        CoreMLDecoderConfig(
            context_length=recipe.context_length,
            prefill_chunk=language.prefill_chunk,
            max_chunk_mb=language.max_chunk_mb,
            precision=precision,
        ),
        resumable=True,
    )


def _coreml_part(name: str, function: str, config: object, *, resumable: bool = False) -> Stage:
    return Stage(
        name=name,
        function=f"{_STAGES}.{function}",
        config=config,
        inputs={"weights": WEIGHTS, "checkpoint": CHECKPOINT},
        tools=_COREML_TOOLS,
        resumable=resumable,
    )
