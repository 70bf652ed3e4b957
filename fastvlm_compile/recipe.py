"""What to build: the typed form of `recipes/*.yaml`, which `recipes/tiny.yaml` explains."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from fastvlm_compile.devices import DeviceName
from fastvlm_compile.quantize.presets import find_quantization
from fastvlm_compile.recipe_checkpoint import CheckpointChoice
from fastvlm_compile.recipe_values import Count, CountOrNone, FurtherSize, Text
from fastvlm_compile.structure import Rule
from validation.gates import Gate
from validation.quantized_variants import QuantizedVariant

SCHEMA = 1

Precision = Literal["float16", "float32"]
OnnxVariant = Literal["fp32", "fp16", "int8", "int4", "int4-fast", "mixed"]
Compressed = Literal["int8", "int4", "int4-fast", "lut4", "lut6", "mixed"]
CoreMLVariant = Literal[Precision, Compressed]
MlxVariant = Literal["fp16", "int8", "int4", "int4-fast", "mixed"]
AppVariant = Literal["fp16", "int8", "int4"]

_GRAPHS = ("vision_encoder", "embed_tokens", "decoder")

COMPONENTS = {
    "reference": (
        *("vision", "projector", "vision_encoder", "embedding", "decoder", "end_to_end"),
        "held_out",
    ),
    "onnx": (
        *(*_GRAPHS, *(f"{name}_conversion" for name in _GRAPHS)),
        *("decoder_precision", "end_to_end"),
    ),
    "mlx": (*_GRAPHS, *(f"{name}_conversion" for name in _GRAPHS), "end_to_end"),
    "coreml": (
        "vision",
        "vision_precision",
        "projector",
        "projector_precision",
        "embedding",
        "decoder",
        "decoder_precision",
        "end_to_end",
    ),
}
"""What can be measured of each target; `reference` is PyTorch with the quantized weights."""


@dataclass(frozen=True, kw_only=True)
class ImageContract:
    """What the vision encoder sees and where the image stands in the prompt."""

    size: Annotated[int, Rule(holds=lambda n: n > 0 and n % 64 == 0, expected="a multiple of 64")]
    """Pixels per side; one token per 64 x 64 of them."""
    fit: Literal["pad", "crop"]
    position: Literal["before", "after"]
    """Image before or after the question."""


@dataclass(frozen=True, kw_only=True)
class GoldenPlan:
    """Inputs whose outputs under the reference every variant is compared with."""

    scenes: CountOrNone
    photographs: CountOrNone
    prompts: tuple[Text, ...]
    max_new_tokens: Count
    task_questions: CountOrNone
    """Held-out questions with a known answer; 0 for a model that was not trained on the scenes."""
    variant_questions: CountOrNone = 0
    """Of these, how many MLX and each compressed Core ML variant answer: they are slow here, and
    the reference with the same weights answers all."""
    variant_images: Count | None = None
    """How many golden images MLX encodes, which takes over a minute each at 1024 pixels without a
    GPU; None for all."""
    fill_context: bool = False
    """Whether one more prompt takes all positions, so that the decoder's last ones are tested."""
    ship: bool = False
    """Whether they go into the bundle, so that `validate` can measure it on another machine."""


@dataclass(frozen=True, kw_only=True)
class OnnxTarget:
    """ONNX graphs for onnxruntime and transformers.js."""

    variants: tuple[OnnxVariant, ...]
    logits: Literal["last", "full"]
    opset: Literal[20, 21]
    """20 has the exact GELU as one operator; the runtime of transformers.js ends at 21."""
    share_tied: bool = False
    """Whether `embed_tokens` of a quantized variant reads the decoder's file where the head is the
    same tensor. onnxruntime can; in a browser a graph finds no file but its own."""
    genai: OnnxVariant | None = None
    """Of these variants the one that `genai_config.json` names; None for no graphs for
    onnxruntime-genai, and no such file."""


@dataclass(frozen=True, kw_only=True)
class CoreMLLanguage:
    """Everything behind the vision tower: projector, embedding table and decoder."""

    prefill_chunk: Annotated[
        int,
        Rule(
            holds=lambda n: n >= 2 and (n % 32 == 0 or 32 % n == 0),
            expected="a multiple or a divisor of 32, at least 2",
        ),
    ]
    """Positions of the prompt that one call takes."""
    max_chunk_mb: Annotated[float, Rule(holds=lambda size: size > 0, expected="a size above 0")]
    """Weights of one package of the decoder at most, 10^6 bytes."""


@dataclass(frozen=True, kw_only=True)
class CoreMLTarget:
    """The model as Core ML packages: the vision tower, and the rest if `language` is given."""

    precisions: tuple[Precision, ...]
    """What is converted and measured."""
    compressed: tuple[Compressed, ...] = ()
    """Variants of the float16 packages with quantized weights, measured too. These packages are
    converted for them in any case."""
    ship: tuple[CoreMLVariant, ...]
    """What of all these goes into the bundle."""
    image_sizes: tuple[FurtherSize, ...] = ()
    """What tower and projector take beside `image.size`, each in a function of its own."""
    language: CoreMLLanguage | None = None
    """None for the vision tower alone."""

    @property
    def converted(self) -> tuple[Precision, ...]:
        """`precisions`, and what `compressed` is made of."""
        if self.compressed and "float16" not in self.precisions:
            return ("float16", *self.precisions)
        return self.precisions


@dataclass(frozen=True, kw_only=True)
class MlxTarget:
    """Weights for MLX, in the layout of mlx-vlm."""

    variants: tuple[MlxVariant, ...]
    tower_dtype: Precision = "float16"
    """Of the vision tower's weights, which decide the precision that mlx-vlm runs it in."""


@dataclass(frozen=True, kw_only=True)
class AppleAppTarget:
    """One folder for Apple's app, of what `coreml` and `mlx` build."""

    variant: AppVariant
    """Of `mlx`: whose language model and projector."""
    vision: CoreMLVariant = "float16"
    """Of `coreml`: whose vision tower."""


@dataclass(frozen=True, kw_only=True)
class TorchTarget:
    """The weights themselves, for `generate --runtime torch`."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is built; a target that is not named is not built."""

    onnx: OnnxTarget | None = None
    coreml: CoreMLTarget | None = None
    mlx: MlxTarget | None = None
    apple_app: AppleAppTarget | None = None
    torch: TorchTarget | None = None

    def variants(self) -> dict[str, tuple[str, ...]]:
        """The variants that are built, by the name of their target."""
        built: dict[str, tuple[str, ...]] = {}
        if self.onnx is not None:
            built["onnx"] = self.onnx.variants
        if self.coreml is not None:
            built["coreml"] = (*self.coreml.precisions, *self.coreml.compressed)
        if self.mlx is not None:
            built["mlx"] = self.mlx.variants
        return built

    def measured(self) -> dict[str, tuple[str, ...]]:
        """`variants`, and under `reference` the quantizations that they share."""
        names = [each.quantization for each in self.quantized()]
        reference = {"reference": tuple(dict.fromkeys(names))} if names else {}
        return reference | self.variants()

    def quantized(self) -> tuple[QuantizedVariant, ...]:
        """Every variant that has a quantization."""
        return tuple(
            QuantizedVariant(target=target, variant=variant, quantization=name)
            for target, variants in self.variants().items()
            for variant in variants
            if (name := quantization_of(target, variant)) is not None
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Inputs whose activations guide the quantization; none of them is among the goldens."""

    scenes: CountOrNone
    photographs: CountOrNone
    prompts: tuple[Text, ...]


MeanBits = Annotated[float, Rule(holds=lambda n: 2 <= n <= 8, expected="2 to 8 bits")]


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How the quantized variants come to be."""

    calibration: Calibration
    int4_block: Literal[32, 64] = 32
    """Weights to a scale in `int4` of ONNX and Core ML. With 64, which `int4` of MLX has in any
    case, all three hold the same integers: half the work of calibrated rounding, a larger error."""
    mixed_bits: MeanBits | None = None
    """Bits per weight, at most, of the language model in the variant `mixed`, if that is built."""
    mixed_positions: Count = 768
    """Of calibration prompts, about, on which each way to store each tensor is measured for it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe. Read one with `recipe_file.load_recipe`."""

    schema: int
    name: Annotated[
        str,
        Rule(
            holds=lambda value: re.fullmatch(r"[a-z0-9][a-z0-9._-]*", value) is not None,
            expected="a name of a-z, 0-9, dot, dash and underscore",
        ),
    ]
    extend: str = ""
    """The recipe that this one was merged over."""
    device: DeviceName | None = None
    """What the bundle is for (see `devices`): of `targets` the variants that this one is sent."""
    license: Text | None = None
    """Of the weights that it names, as the hub calls it; Apple's if absent. For the model card."""
    checkpoint: CheckpointChoice
    image: ImageContract
    context_length: Count
    goldens: GoldenPlan
    quantization: Quantization | None = None
    targets: Targets
    gates: tuple[Gate, ...]


def components_of(targets: Targets, target: str, variant: str) -> tuple[str, ...]:
    """What is measured of a variant: without `language` the tower alone, and an error is split
    only where it has parts."""
    names = COMPONENTS[target]
    if target == "coreml" and (targets.coreml is None or targets.coreml.language is None):
        names = tuple(name for name in names if name.startswith("vision"))
    if variant == "float32":
        names = tuple(name for name in names if not name.endswith("_precision"))
    if target != "coreml" and quantization_of(target, variant) is None:
        parts = ("_conversion", "_precision")
        names = tuple(name for name in names if not name.endswith(parts))
    return names


def quantization_of(target: str, variant: str) -> str | None:
    """The name of the quantization whose tensors a variant encodes; None where nothing is."""
    if variant == "mixed":
        return "mixed" if target == "onnx" else f"mixed-{target}"
    found = find_quantization(target, variant)
    return None if found is None else found.name
