"""Reads `recipes/*.yaml`, and finds the mistakes that only a whole recipe shows."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.recipe import (
    COMPONENTS,
    SCHEMA,
    AppleAppTarget,
    Calibration,
    CoreMLTarget,
    GoldenPlan,
    Recipe,
    Targets,
    components_of,
)
from fastvlm_compile.recipe_device import for_device
from fastvlm_compile.recipe_narrow import gates_gone
from fastvlm_compile.structure import find, nearest, read
from fastvlm_compile.yaml_source import MappingNode, load_tree
from validation.gates import Gate


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
    inherited = tuple(
        gate
        for index, gate in enumerate(recipe.gates)
        if find(tree, ("gates", index)).file != tree.place.file
    )
    gone = gates_gone(inherited, recipe.targets)
    for problem in _problems(recipe, gone):
        raise RecipeError(f"{find(tree, problem.path)}: {problem.message}", hint=problem.hint)
    left = tuple(gate for gate in recipe.gates if gate not in gone)
    return for_device(dataclasses.replace(recipe, gates=left))


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


def _problems(recipe: Recipe, gone: tuple[Gate, ...]) -> Iterator[_Problem]:
    targets = recipe.targets
    if targets == Targets():
        yield _Problem(path=("targets",), message="targets: found none, expected at least one")
    for target, variants in targets.variants().items():
        key = "precisions" if target == "coreml" else "variants"
        path: tuple[str | int, ...] = ("targets", target, key)
        if not variants:
            yield _Problem(path=path, message=f"targets.{target}.{key}: found an empty list")
        if len(set(variants)) != len(variants):
            yield _Problem(path=path, message=f"targets.{target}.{key}: a name is given twice")
    if targets.onnx is not None and targets.onnx.genai not in (None, *targets.onnx.variants):
        yield _Problem(
            path=("targets", "onnx", "genai"),
            message=f"targets.onnx.genai: {targets.onnx.genai} is not built",
            hint=f"built: {', '.join(targets.onnx.variants)}",
        )
    if targets.coreml is not None:
        yield from _coreml_problems(targets.coreml, context_length=recipe.context_length)
        yield from _size_problems(recipe, targets.coreml)
    if targets.apple_app is not None:
        yield from _app_problems(targets, targets.apple_app)
    yield from _quantization_problems(recipe)
    if recipe.goldens.fill_context and not recipe.goldens.prompts:
        yield _Problem(
            path=("goldens", "fill_context"),
            message="goldens.fill_context: there is no text to fill the context with",
            hint="give at least one text in goldens.prompts",
        )
    for index, gate in enumerate(recipe.gates):
        if gate not in gone:
            yield from _gate_problems(index, gate, targets)


def _coreml_problems(target: CoreMLTarget, *, context_length: int) -> Iterator[_Problem]:
    at = ("targets", "coreml")
    for index, precision in enumerate(target.ship):
        built = (*target.precisions, *target.compressed)
        if precision not in built:
            yield _Problem(
                path=(*at, "ship", index),
                message=f"targets.coreml.ship: {precision} is not built",
                hint=f"built: {', '.join(built)}",
            )
    if len(set(target.ship)) != len(target.ship):
        yield _Problem(path=(*at, "ship"), message="targets.coreml.ship: a name is given twice")
    if target.language is not None and target.language.prefill_chunk > context_length:
        yield _Problem(
            path=(*at, "language", "prefill_chunk"),
            message=f"targets.coreml.language.prefill_chunk: {target.language.prefill_chunk} "
            f"positions do not fit into the context_length, {context_length}",
        )


def _app_problems(targets: Targets, app: AppleAppTarget) -> Iterator[_Problem]:
    built = targets.variants()
    for key, name, target in (("variant", app.variant, "mlx"), ("vision", app.vision, "coreml")):
        if name not in built.get(target, ()):
            yield _Problem(
                path=("targets", "apple_app", key),
                message=f"targets.apple_app.{key}: {name} is not built by targets.{target}",
                hint=f"built: {', '.join(built.get(target, ())) or 'nothing'}",
            )


def _quantization_problems(recipe: Recipe) -> Iterator[_Problem]:
    quantized = recipe.targets.quantized()
    if not quantized:
        return
    if recipe.quantization is None:
        first = quantized[0]
        yield _Problem(
            path=("targets", first.target),
            message=f"targets.{first.target}: `{first.variant}` is quantized, but there is no "
            "`quantization`",
            hint="add `quantization: {calibration: {scenes, photographs, prompts}}`",
        )
        return
    yield from _photograph_problems(recipe.goldens, recipe.quantization.calibration)
    is_mixed = any(each.variant == "mixed" for each in quantized)
    if is_mixed and recipe.quantization.mixed_bits is None:
        yield _Problem(
            path=("quantization",),
            message="quantization.mixed_bits: missing, but a variant `mixed` is built",
            hint="give the bits per weight that the language model may have, such as 4.5",
        )


def _photograph_problems(goldens: GoldenPlan, calibration: Calibration) -> Iterator[_Problem]:
    """Goldens take the first photographs, calibration the last: they must not meet."""
    from validation.photographs import NUM_PHOTOGRAPHS  # loads Pillow

    if goldens.photographs + calibration.photographs > NUM_PHOTOGRAPHS:
        yield _Problem(
            path=("quantization", "calibration", "photographs"),
            message=f"quantization.calibration.photographs: {calibration.photographs} and the "
            f"goldens' {goldens.photographs} are more than the {NUM_PHOTOGRAPHS} there are, so "
            "some would be both",
        )


def _size_problems(recipe: Recipe, target: CoreMLTarget) -> Iterator[_Problem]:
    for index, size in enumerate(target.image_sizes):
        wrong = ""
        if size == recipe.image.size:
            wrong = f"{size} is the image.size, which is served anyway"
        elif size in target.image_sizes[:index]:
            wrong = f"{size} is given twice"
        elif (num_tokens := (size // 64) ** 2) >= recipe.context_length:
            wrong = (
                f"the {num_tokens} tokens of {size} pixels leave no room in the "
                f"context_length, {recipe.context_length}"
            )
        if wrong:
            yield _Problem(
                path=("targets", "coreml", "image_sizes", index),
                message=f"targets.coreml.image_sizes[{index}]: {wrong}",
            )


def _gate_problems(index: int, gate: Gate, targets: Targets) -> Iterator[_Problem]:
    at = f"gates[{index}]"
    built = targets.measured()
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
    elif gate.component not in (known := components_of(targets, gate.target, gate.variant)):
        yield _Problem(
            path=("gates", index, "component"),
            message=f"{at}.component: there is no `{gate.component}` of {gate.target} "
            f"{gate.variant} in this recipe",
            hint=nearest(gate.component, known),
        )
    if not gate.why.strip():
        yield _Problem(
            path=("gates", index, "why"),
            message=f"{at}.why: found nothing, expected the reason for this threshold",
        )
