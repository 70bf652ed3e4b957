"""A recipe with fewer variants: what stands and falls with them goes along."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar, get_args

from fastvlm_compile.recipe import (
    AppleAppTarget,
    Compressed,
    CoreMLTarget,
    MlxTarget,
    MlxVariant,
    OnnxTarget,
    OnnxVariant,
    Precision,
    Recipe,
    Targets,
    quantization_of,
)
from validation.gates import Gate

_VARIANTS: Mapping[str, frozenset[str]] = {
    "onnx": frozenset(get_args(OnnxVariant)),
    "coreml": frozenset((*get_args(Precision), *get_args(Compressed))),
    "mlx": frozenset(get_args(MlxVariant)),
}
_KNOWN: Mapping[str, frozenset[str]] = {
    **_VARIANTS,
    "reference": frozenset(
        name
        for target, variants in _VARIANTS.items()
        for variant in variants
        if (name := quantization_of(target, variant)) is not None
    ),
}
"""All variants that any recipe could build."""

Name = TypeVar("Name", bound=str)
Chosen = AbstractSet[tuple[str, str]]
"""Target and variant."""


def narrow(recipe: Recipe, chosen: Chosen) -> Recipe:
    """The recipe with these variants alone: what they need stays, gates of the others go.

    Apple's app stays where both its parts do; `torch` is no variant and stays.
    """
    targets = _targets(recipe.targets, chosen)
    gone = gates_gone(recipe.gates, targets)
    gates = tuple(gate for gate in recipe.gates if gate not in gone)
    return dataclasses.replace(recipe, targets=targets, gates=gates)


def gates_gone(gates: tuple[Gate, ...], targets: Targets) -> tuple[Gate, ...]:
    """The gates that there is nothing to judge by, because `targets` leave a variant out.

    A name that is no variant of any recipe stays, for it is a mistake to be told.
    """
    built = targets.measured()
    alone = "float32" not in built.get("coreml", ())
    return tuple(
        gate
        for gate in gates
        if gate.variant in _KNOWN.get(gate.target, frozenset())
        and (
            gate.variant not in built.get(gate.target, ())
            or (alone and _is_precision_of_float16(gate))
        )
    )


def _is_precision_of_float16(gate: Gate) -> bool:
    """Measured against the float32 packages."""
    is_float16 = (gate.target, gate.variant) == ("coreml", "float16")
    return is_float16 and gate.component.endswith("_precision")


def _targets(targets: Targets, chosen: Chosen) -> Targets:
    narrowed = Targets(
        onnx=None if targets.onnx is None else _onnx(targets.onnx, chosen),
        coreml=None if targets.coreml is None else _coreml(targets.coreml, chosen),
        mlx=None if targets.mlx is None else _mlx(targets.mlx, chosen),
        torch=targets.torch,
    )
    app = targets.apple_app
    if app is not None and _has_parts(app, narrowed):
        return dataclasses.replace(narrowed, apple_app=app)
    return narrowed


def _onnx(target: OnnxTarget, chosen: Chosen) -> OnnxTarget | None:
    variants = _kept("onnx", target.variants, chosen)
    genai = target.genai if target.genai in variants else None
    return dataclasses.replace(target, variants=variants, genai=genai) if variants else None


def _coreml(target: CoreMLTarget, chosen: Chosen) -> CoreMLTarget | None:
    compressed = _kept("coreml", target.compressed, chosen)
    precisions = _kept("coreml", target.precisions, chosen)
    if not precisions and not compressed:
        return None
    return dataclasses.replace(
        target,
        precisions=precisions,
        compressed=compressed,
        ship=_kept("coreml", target.ship, chosen),
    )


def _mlx(target: MlxTarget, chosen: Chosen) -> MlxTarget | None:
    variants = _kept("mlx", target.variants, chosen)
    return dataclasses.replace(target, variants=variants) if variants else None


def _has_parts(app: AppleAppTarget, targets: Targets) -> bool:
    built = targets.variants()
    return app.variant in built.get("mlx", ()) and app.vision in built.get("coreml", ())


def _kept(target: str, variants: tuple[Name, ...], chosen: Chosen) -> tuple[Name, ...]:
    return tuple(variant for variant in variants if (target, variant) in chosen)
