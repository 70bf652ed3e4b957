"""The stages of float16 and quantized variants, each an encoding of shared tensors. Pure."""

from collections.abc import Iterator

from fastvlm_compile.export.onnx.variants import VARIANT_SUFFIXES
from fastvlm_compile.plan_quantize import CALIBRATION, parts_of
from fastvlm_compile.quantize.presets import VISION_INT8, PartRole
from fastvlm_compile.recipe import (
    AppleAppTarget,
    MlxTarget,
    OnnxTarget,
    Recipe,
    quantization_of,
)
from fastvlm_compile.stage import Stage
from fastvlm_compile.stages.coreml_compressed import CompressConfig, CoreMLPart
from fastvlm_compile.stages.mlx import MlxConfig
from fastvlm_compile.stages.onnx import OnnxVisionConfig
from fastvlm_compile.stages.onnx_variants import (
    OnnxVariantLanguageConfig,
)
from fastvlm_compile.stages.parity import (
    CoreMLParityConfig,
    MlxParityConfig,
    OnnxParityConfig,
)

_STAGES = "fastvlm_compile.stages"
_TORCH = ("torch", "numpy", "safetensors")
_ONNX = (*_TORCH, "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")
_COREML = (*_TORCH, "coremltools")
_MLX = ("numpy", "safetensors", "mlx", "mlx-lm")
_MLX_EXPORT = ("numpy", "torch", "safetensors", "ml-dtypes")

_MAX_BITS = {"fp16": 16.5, "int8": 9.0, "int4": 5.1, "int4-fast": 4.4}
"""Of each ONNX graph of the language model on disk, per weight, with norms, biases and graph."""
_MIXED_ROOM = 0.1
"""What norms, biases and graph may add to the budget of `mixed`, bits per weight."""


def onnx_variant(recipe: Recipe, target: OnnxTarget, variant: str) -> Iterator[Stage]:
    """Tower, embedding and decoder of a variant that is no fp32, and their parity."""
    language = OnnxVariantLanguageConfig(
        variant=variant,
        opset=target.opset,
        logits=target.logits,
        context_length=recipe.context_length,
        max_bits_per_weight=_max_bits(recipe, variant),
        share_tied=target.share_tied,
    )
    half = variant == "fp16"
    parts = {} if half else parts_of(recipe, "onnx", variant)
    yield Stage(
        name=f"onnx.language.{variant}",
        function=f"{_STAGES}.onnx_variants:{'language_half' if half else 'language'}",
        config=language,
        inputs={"weights": "weights", **({} if half else {"quantized": parts["language"]})},
        tools=_ONNX,
    )
    graphs = {
        "vision_encoder": onnx_vision_stage(variant),
        "embed_tokens": f"onnx.language.{variant}",
        "decoder_model_merged": f"onnx.language.{variant}",
    }
    yield Stage(
        name=f"parity.onnx.{variant}",
        function=f"{_STAGES}.parity:onnx",
        config=OnnxParityConfig(
            variant=variant,
            logits=target.logits,
            suffix=VARIANT_SUFFIXES[variant],
            vision_suffix=VARIANT_SUFFIXES[_vision_variant(variant)],
            left_padding=False,  # GroupQueryAttention counts positions from the left
        ),
        inputs={
            "golden": "golden",
            "checkpoint": "checkpoint",
            **graphs,
            **_reference("onnx", variant),
        },
        tools=("onnxruntime", "numpy", "pillow", "tokenizers"),
    )


def onnx_towers(recipe: Recipe, target: OnnxTarget) -> Iterator[Stage]:
    """Each smaller tower once, however many variants use it."""
    config = OnnxVisionConfig(image_size=recipe.image.size, opset=target.opset)
    for variant in dict.fromkeys(_vision_variant(each) for each in target.variants):
        if variant == "fp32":
            continue
        half = variant == "fp16"
        quantized = {"quantized": f"quantize.{VISION_INT8.name}", CALIBRATION: CALIBRATION}
        yield Stage(
            name=onnx_vision_stage(variant),
            function=f"{_STAGES}.onnx_variants:{'vision_half' if half else 'vision_int8'}",
            config=config,
            inputs={"weights": "weights", **({} if half else quantized)},
            tools=_ONNX,
        )


def onnx_vision_stage(variant: str) -> str:
    """Whose tower a variant uses: everything with integers has the same one."""
    return f"onnx.vision_encoder.{_vision_variant(variant)}"


def onnx_graphs(variant: str) -> tuple[str, str, str]:
    """File names, without what follows the first dot, of the graphs of a variant."""
    suffix = VARIANT_SUFFIXES[variant]
    tower = VARIANT_SUFFIXES[_vision_variant(variant)]
    return (f"vision_encoder{tower}", f"embed_tokens{suffix}", f"decoder_model_merged{suffix}")


def onnx_genai_graphs(variant: str) -> tuple[str, str, str]:
    """As `onnx_graphs`, the two that onnxruntime-genai has for itself and the decoder."""
    tower, embedding, decoder = onnx_graphs(variant)
    return (
        tower.replace("vision_encoder", "vision"),
        embedding.replace("embed_tokens", "embedding"),
        decoder,
    )


def _vision_variant(variant: str) -> str:
    return variant if variant in ("fp32", "fp16") else "int8"


def _max_bits(recipe: Recipe, variant: str) -> float:
    if variant == "mixed":
        assert recipe.quantization is not None
        assert recipe.quantization.mixed_bits is not None
        return recipe.quantization.mixed_bits + _MIXED_ROOM
    return _MAX_BITS[variant]


def coreml_compressed(
    recipe: Recipe, variant: str, parts: tuple[CoreMLPart, ...]
) -> Iterator[Stage]:
    """The float16 packages once more with quantized tensors, and their parity."""
    quantized = parts_of(recipe, "coreml", variant)
    for part in parts:
        role: PartRole = "vision" if part in ("vision", "projector") else "language"
        yield Stage(
            name=f"coreml.{part}.{variant}",
            function=f"{_STAGES}.coreml_compressed:compress",
            config=CompressConfig(part=part),
            inputs={
                "packages": f"coreml.{part}.float16",
                "quantized": quantized[role],
                "weights": "weights",
            },
            tools=_COREML,
            resumable=part == "decoder",
        )
    yield Stage(
        name=f"parity.coreml.{variant}",
        function=f"{_STAGES}.parity:coreml",
        config=CoreMLParityConfig(
            variant=variant, precision="float16", max_questions=recipe.goldens.variant_questions
        ),
        inputs={
            "golden": "golden",
            "checkpoint": "checkpoint",
            **{part: f"coreml.{part}.{variant}" for part in parts},
            **_reference("coreml", variant),
        },
        tools=("coremltools", "torch", "numpy", "safetensors", "tokenizers"),
        resumable=True,
    )


def mlx_stages(recipe: Recipe, target: MlxTarget) -> Iterator[Stage]:
    """A folder for each variant, and its parity."""
    for variant in target.variants:
        quantized = quantization_of("mlx", variant) is not None
        yield Stage(
            name=f"mlx.{variant}",
            function=f"{_STAGES}.mlx:export",
            config=MlxConfig(tower_dtype=target.tower_dtype),
            inputs=_mlx_inputs(recipe, variant),
            tools=_MLX_EXPORT,
        )
        yield Stage(
            name=f"parity.mlx.{variant}",
            function=f"{_STAGES}.parity:mlx",
            config=MlxParityConfig(
                variant=variant,
                max_questions=recipe.goldens.variant_questions,
                max_images=recipe.goldens.variant_images,
            ),
            inputs={
                "golden": "golden",
                "checkpoint": "checkpoint",
                "model": f"mlx.{variant}",
                **(_reference("mlx", variant) if quantized else {}),
            },
            tools=(*_MLX, "pillow", "tokenizers"),
            resumable=True,
        )


def apple_app_stage(recipe: Recipe, target: AppleAppTarget) -> Stage:
    """The language model and the projector of an MLX variant once more, as Apple's app reads it."""
    return Stage(
        name=f"apple_app.{target.variant}",
        function=f"{_STAGES}.mlx:export",
        config=MlxConfig(layout="apple_app"),
        inputs=_mlx_inputs(recipe, target.variant),
        tools=_MLX_EXPORT,
    )


def _mlx_inputs(recipe: Recipe, variant: str) -> dict[str, str]:
    quantized = quantization_of("mlx", variant) is not None
    parts = parts_of(recipe, "mlx", variant) if quantized else {}
    return {"weights": "weights", **{f"quantized_{role}": part for role, part in parts.items()}}


def _reference(target: str, variant: str) -> dict[str, str]:
    name = quantization_of(target, variant)
    return {} if name is None else {"reference": f"parity.reference.{name}"}
