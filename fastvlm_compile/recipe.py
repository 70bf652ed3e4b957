"""What to build: the typed form of `recipes/*.yaml`, which `recipes/tiny.yaml` explains."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.structure import Rule, find, nearest, read
from fastvlm_compile.yaml_source import MappingNode, load_tree
from reference.errors import UserError
from validation.gates import Gate

SCHEMA = 1

Text = Annotated[str, Rule(holds=lambda value: bool(value.strip()), expected="a text")]
Count = Annotated[int, Rule(holds=lambda value: value >= 1, expected="a whole number above 0")]
CountOrNone = Annotated[int, Rule(holds=lambda value: value >= 0, expected="a whole number from 0")]
Precision = Literal["float16", "float32"]

COMPONENTS = {
    "onnx": ("vision_encoder", "embed_tokens", "decoder", "end_to_end"),
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
"""What can be measured of each target."""


@dataclass(frozen=True, kw_only=True)
class SyntheticCheckpoint:
    """Random weights in the shapes of a released model."""

    size: Literal["0.5b", "1.5b", "7b"]
    seed: CountOrNone
    layout: Literal["apple", "transformers"]


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice:
    """Where the weights come from: exactly one of `path`, `hub` with `revision`, `synthetic`."""

    path: Path | None = None
    """A checkpoint's folder, relative to the file that names it."""
    hub: Text | None = None
    """`owner/name` on the Hugging Face hub."""
    revision: Text | None = None
    """Commit of `hub`: a branch would name something else tomorrow."""
    synthetic: SyntheticCheckpoint | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("path", "hub", "synthetic") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise UserError(f"found {found}, expected exactly one of path, hub, synthetic")
        if (self.hub is None) != (self.revision is None):
            raise UserError("`hub` and `revision` are given together or not at all")


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
    ship: bool = False
    """Whether they go into the bundle, so that `validate` can measure it on another machine."""


@dataclass(frozen=True, kw_only=True)
class OnnxTarget:
    """ONNX graphs for onnxruntime and transformers.js."""

    variants: tuple[Literal["fp32"], ...]
    logits: Literal["last", "full"]
    opset: Literal[20, 21]
    """20 has the exact GELU as one operator; the runtime of transformers.js ends at 21."""


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
    """What is built and measured."""
    ship: tuple[Precision, ...]
    """What of it goes into the bundle."""
    language: CoreMLLanguage | None = None
    """None for the vision tower alone."""


@dataclass(frozen=True, kw_only=True)
class TorchTarget:
    """The weights themselves, for `generate --runtime torch`."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is built; a target that is not named is not built."""

    onnx: OnnxTarget | None = None
    coreml: CoreMLTarget | None = None
    torch: TorchTarget | None = None

    def variants(self) -> dict[str, tuple[str, ...]]:
        """The variants that are built, by the name of their target."""
        built: dict[str, tuple[str, ...]] = {}
        if self.onnx is not None:
            built["onnx"] = self.onnx.variants
        if self.coreml is not None:
            built["coreml"] = self.coreml.precisions
        return built


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe. Read one with `load_recipe`."""

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
    checkpoint: CheckpointChoice
    image: ImageContract
    context_length: Count
    goldens: GoldenPlan
    targets: Targets
    gates: tuple[Gate, ...]


def components_of(targets: Targets, target: str, variant: str) -> tuple[str, ...]:
    """What is measured of a variant: without `language` the tower alone, and what precision costs
    only where there is less than float32."""
    names = COMPONENTS[target]
    if target != "coreml":
        return names
    if targets.coreml is None or targets.coreml.language is None:
        names = tuple(name for name in names if name.startswith("vision"))
    if variant == "float32":
        names = tuple(name for name in names if not name.endswith("_precision"))
    return names


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A mistake that only the whole recipe shows, and the path of the key to point at."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe and everything it extends.

    Raises:
        RecipeError: `file:line:column: what was found, what was expected`.
    """
    tree = load_tree(path)
    _check_schema(tree)
    recipe = read(tree, Recipe)
    for problem in _problems(recipe):
        raise RecipeError(f"{find(tree, problem.path)}: {problem.message}", hint=problem.hint)
    return recipe


def _check_schema(tree: MappingNode) -> None:
    """First of all: the keys of another schema would only give misleading messages."""
    entry = tree.entries.get("schema")
    if entry is None:
        raise RecipeError(
            f"{tree.place}: the key `schema` is missing", hint=f"write `schema: {SCHEMA}`"
        )
    if read(entry.node, int) != SCHEMA:
        raise RecipeError(
            f"{entry.node.place}: schema: this program reads schema {SCHEMA} only",
            hint="use the version of fastvlm-compile that the recipe was written for",
        )


def _problems(recipe: Recipe) -> Iterator[_Problem]:
    targets = recipe.targets
    if targets == Targets():
        yield _Problem(path=("targets",), message="targets: found none, expected at least one")
    for target, variants in targets.variants().items():
        key = {"onnx": "variants", "coreml": "precisions"}[target]
        path: tuple[str | int, ...] = ("targets", target, key)
        if not variants:
            yield _Problem(path=path, message=f"targets.{target}.{key}: found an empty list")
        if len(set(variants)) != len(variants):
            yield _Problem(path=path, message=f"targets.{target}.{key}: a name is given twice")
    if targets.coreml is not None:
        yield from _coreml_problems(targets.coreml, context_length=recipe.context_length)
    for index, gate in enumerate(recipe.gates):
        yield from _gate_problems(index, gate, targets)


def _coreml_problems(target: CoreMLTarget, *, context_length: int) -> Iterator[_Problem]:
    at = ("targets", "coreml")
    for index, precision in enumerate(target.ship):
        if precision not in target.precisions:
            yield _Problem(
                path=(*at, "ship", index),
                message=f"targets.coreml.ship: {precision} is not built",
                hint=f"built: {', '.join(target.precisions)}",
            )
    if len(set(target.ship)) != len(target.ship):
        yield _Problem(path=(*at, "ship"), message="targets.coreml.ship: a name is given twice")
    if target.language is not None and target.language.prefill_chunk > context_length:
        yield _Problem(
            path=(*at, "language", "prefill_chunk"),
            message=f"targets.coreml.language.prefill_chunk: {target.language.prefill_chunk} "
            f"positions do not fit into the context_length, {context_length}",
        )


def _gate_problems(index: int, gate: Gate, targets: Targets) -> Iterator[_Problem]:
    at = f"gates[{index}]"
    built = targets.variants()
    if gate.target not in COMPONENTS:
        yield _Problem(
            path=("gates", index, "target"),
            message=f"{at}.target: unknown target `{gate.target}`",
            hint=nearest(gate.target, COMPONENTS),
        )
    elif gate.variant not in built.get(gate.target, ()):
        yield _Problem(
            path=("gates", index, "variant"),
            message=f"{at}.variant: the targets do not build `{gate.variant}` of {gate.target}",
            hint=f"built: {', '.join(built.get(gate.target, ())) or 'nothing of this target'}",
        )
    elif gate.component not in COMPONENTS[gate.target]:
        yield _Problem(
            path=("gates", index, "component"),
            message=f"{at}.component: {gate.target} has no component `{gate.component}`",
            hint=nearest(gate.component, COMPONENTS[gate.target]),
        )
    elif gate.component not in components_of(targets, gate.target, gate.variant):
        yield _Problem(
            path=("gates", index, "component"),
            message=f"{at}.component: there is no `{gate.component}` of {gate.target} "
            f"{gate.variant} in this recipe",
            hint="known: " + ", ".join(components_of(targets, gate.target, gate.variant)),
        )
    if not gate.why.strip():
        yield _Problem(
            path=("gates", index, "why"),
            message=f"{at}.why: found nothing, expected the reason for this threshold",
        )
