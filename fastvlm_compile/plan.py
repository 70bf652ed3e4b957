"""Recipe -> stages, in an order in which each comes after those that it reads from. Pure."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fastvlm_compile.recipe import CoreMLTarget, OnnxTarget, Recipe
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.stages.checkpoint import (
    InspectConfig,
    SynthesizeConfig,
    TorchWeightsConfig,
)
from fastvlm_compile.stages.coreml import CoreMLVisionConfig
from fastvlm_compile.stages.golden import GoldenConfig
from fastvlm_compile.stages.onnx import OnnxDecoderConfig, OnnxEmbedConfig, OnnxVisionConfig
from fastvlm_compile.stages.parity import CoreMLParityConfig, OnnxParityConfig

WEIGHTS = "weights"
CHECKPOINT = "checkpoint"
GOLDEN = "golden"
TORCH_WEIGHTS = "torch.weights"
ONNX_GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")

_STAGES = "fastvlm_compile.stages"
_MODEL_TOOLS = ("torch", "numpy", "safetensors")
_ONNX_TOOLS = (*_MODEL_TOOLS, "onnx", "onnx-ir", "onnxsim")
_COREML_TOOLS = (*_MODEL_TOOLS, "coremltools")

# Config field -> recipe key, to tell a changed key by the name that the user knows.
_SYNTHETIC_KEYS = {name: f"checkpoint.synthetic.{name}" for name in ("size", "seed", "layout")}
_IMAGE_KEYS = {"image_size": "image.size", "fit": "image.fit", "image_position": "image.position"}
_GOLDEN_KEYS = {
    name: f"goldens.{name}"
    for name in ("scenes", "photographs", "prompts", "max_new_tokens", "task_questions")
}
_ONNX_KEYS = {name: f"targets.onnx.{name}" for name in ("logits", "opset")}
_RECIPE_KEYS = {
    **_SYNTHETIC_KEYS,
    **_IMAGE_KEYS,
    **_GOLDEN_KEYS,
    **_ONNX_KEYS,
    "context_length": "context_length",
}


def make_plan(recipe: Recipe, *, weights: Path | None) -> Plan:
    """All stages of a recipe.

    Args:
        recipe: what to build.
        weights: the checkpoint's folder; None for a recipe that synthesizes it.
    """
    sources = () if weights is None else (Source(name=WEIGHTS, path=weights),)
    stages = tuple(_stages(recipe, synthetic=weights is None))
    return Plan(
        recipe=recipe.name,
        sources=sources,
        stages=stages,
        recipe_keys={stage.name: _RECIPE_KEYS for stage in stages},
    )


def parity_stages(recipe: Recipe) -> tuple[str, ...]:
    """The stages whose `parity.json` the gates are judged over, in the order of the report."""
    variants = recipe.targets.variants().items()
    return tuple(f"parity.{target}.{name}" for target, names in variants for name in names)


def _stages(recipe: Recipe, *, synthetic: bool) -> Iterator[Stage]:
    if synthetic:
        yield _synthesize(recipe)
    yield Stage(
        name=CHECKPOINT,
        function=f"{_STAGES}.checkpoint:inspect",
        config=InspectConfig(image_size=recipe.image.size, context_length=recipe.context_length),
        inputs={"weights": WEIGHTS},
        tools=("tokenizers",),
    )
    yield _golden(recipe)
    if recipe.targets.onnx is not None:
        yield from _onnx(recipe, recipe.targets.onnx)
    if recipe.targets.coreml is not None:
        yield from _coreml(recipe, recipe.targets.coreml)
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


def _golden(recipe: Recipe) -> Stage:
    goldens, image = recipe.goldens, recipe.image
    return Stage(
        name=GOLDEN,
        function=f"{_STAGES}.golden:golden",
        config=GoldenConfig(
            image_size=image.size,
            fit=image.fit,
            image_position=image.position,
            scenes=goldens.scenes,
            photographs=goldens.photographs,
            prompts=goldens.prompts,
            max_new_tokens=goldens.max_new_tokens,
            task_questions=goldens.task_questions,
        ),
        inputs={"weights": WEIGHTS, "checkpoint": CHECKPOINT},
        tools=(*_MODEL_TOOLS, "pillow", "tokenizers", "scikit-image"),
    )


def _onnx(recipe: Recipe, target: OnnxTarget) -> Iterator[Stage]:
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
    for variant in target.variants:
        yield Stage(
            name=f"parity.onnx.{variant}",
            function=f"{_STAGES}.parity:onnx",
            config=OnnxParityConfig(variant=variant, logits=target.logits),
            inputs={
                "golden": GOLDEN,
                "checkpoint": CHECKPOINT,
                **{graph: f"onnx.{graph}" for graph in ONNX_GRAPHS},
            },
            tools=("onnxruntime", "numpy", "tokenizers"),
        )


def _coreml(recipe: Recipe, target: CoreMLTarget) -> Iterator[Stage]:
    for precision in target.precisions:
        yield Stage(
            name=f"coreml.vision.{precision}",
            function=f"{_STAGES}.coreml:vision",
            config=CoreMLVisionConfig(image_size=recipe.image.size, precision=precision),
            inputs={"weights": WEIGHTS, "checkpoint": CHECKPOINT},
            tools=_COREML_TOOLS,
        )
    for precision in target.precisions:
        yield Stage(
            name=f"parity.coreml.{precision}",
            function=f"{_STAGES}.parity:coreml",
            config=CoreMLParityConfig(precision=precision),
            inputs={"golden": GOLDEN, "package": f"coreml.vision.{precision}"},
            tools=("coremltools", "numpy"),
        )
