"""Measure a bundle again on this machine, with the goldens that travel in it.

Measures what is there, whether or not it is what was built: for that there is `verify`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from fastvlm_compile.bundle.layout import GOLDENS, has_language, quantized_goldens, shipped_of
from fastvlm_compile.bundle.licence import has_random_weights
from fastvlm_compile.bundle.manifest import Manifest, Variant, read_manifest
from fastvlm_compile.bundle.opening import graphs_of, packages_of
from fastvlm_compile.errors import BundleError
from fastvlm_compile.progress import Progress
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.stages.parity import CoreMLParityConfig, MlxParityConfig, OnnxParityConfig
from fastvlm_compile.structure import from_plain
from validation.coreml_parity import (
    CoreMLParity,
    Measured,
    dequantized_outputs,
    measure_coreml,
)
from validation.coreml_units_parity import UnitMeasured, measure_coreml_units
from validation.gates import judge
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.package_outputs import NoOutputs, PackageOutputs, read_outputs
from validation.parity_file import ParityReport
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_units import UnitReport, UnitSettings
from validation.substituted_goldens import SubstitutedGoldens
from validation.task import ALL_QUESTIONS
from validation.tensor_parity import Tolerance

_Measurements = tuple[Measurement, ...]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a bundle is worth on this machine."""

    parity: ParityReport
    """As a build reports; variants that are not shipped or cannot be run are `not run`."""
    units: tuple[UnitReport, ...]
    """How Core ML did, one report for each variant; empty where it is not there."""

    @property
    def executed_by_core_ml(self) -> bool:
        """Whether Core ML computed anything of it."""
        return any(row.executed_by_core_ml for row in self.parity.measurements)


@dataclass(frozen=True, kw_only=True)
class _Bundle:
    folder: Path
    manifest: Manifest
    recipe: Recipe
    goldens: Goldens


def validate_bundle(folder: Path, progress: Progress, *, core_ml: UnitSettings) -> Validation:
    """Every variant in the bundle under whatever executes it here, judged by the recipe's gates.

    Args:
        folder: the bundle.
        progress: told of everything that is run.
        core_ml: on which compute unit Core ML runs, where it is there: one, in a process of its
            own.

    Raises:
        BundleError: no bundle, or it was built without goldens.
        GoldenError: its goldens are damaged.
        UserError: a graph or a package is missing or damaged.
    """
    from validation.golden_file import open_goldens

    manifest = read_manifest(folder)
    if not (folder / GOLDENS).is_dir():
        raise BundleError(
            f"{folder}: built without goldens, so there is nothing to compare with",
            hint="build it with `ship: true` in the recipe's goldens",
        )
    recipe = from_plain(yaml.safe_load(manifest.provenance.recipe), Recipe)
    goldens = open_goldens(folder / GOLDENS)
    bundle = _Bundle(folder=folder, manifest=manifest, recipe=recipe, goldens=goldens)
    units: list[UnitReport] = []
    measurements = (
        *_onnx(bundle, progress),
        *_coreml(bundle, progress, core_ml, units),
        *_mlx(bundle, progress),
        *_not_shipped(bundle),
    )
    rows = judge(measurements, recipe.gates, random_weights=has_random_weights(manifest))
    parity = ParityReport(measurements=measurements, gates=rows)
    return Validation(parity=parity, units=tuple(units))


def _onnx(bundle: _Bundle, progress: Progress) -> Iterator[Measurement]:
    target = bundle.recipe.targets.onnx
    for variant in shipped_of(bundle.manifest.variants, "onnx"):
        assert target is not None, "a variant of a target that the recipe does not name"
        plain = variant.variant == "fp32"
        config = OnnxParityConfig(variant=variant.variant, logits=target.logits, left_padding=plain)
        try:
            yield from _measure_onnx(bundle, variant, config, progress)
        except ModuleNotFoundError as error:
            yield from _missing(bundle, variant, error)


def _measure_onnx(
    bundle: _Bundle, variant: Variant, config: OnnxParityConfig, progress: Progress
) -> _Measurements:
    from reference.prompt import load_tokenizer
    from validation.onnx_parity import OnnxParity, measure_onnx
    from validation.runtimes.onnxruntime_runtime import OnnxRuntime

    return measure_onnx(
        OnnxParity(
            variant=config.variant,
            logits=config.logits,
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            left_padding=config.left_padding,
            dequantized=_dequantized(bundle, variant),
        ),
        goldens=bundle.goldens,
        runtime=OnnxRuntime(graphs_of(bundle.folder, variant.variant), brief_vision=True),
        tokenizer=load_tokenizer(bundle.folder),
        progress=progress,
    )


def _mlx(bundle: _Bundle, progress: Progress) -> Iterator[Measurement]:
    for variant in shipped_of(bundle.manifest.variants, "mlx"):
        try:
            yield from _measure_mlx(bundle, variant, progress)
        except ModuleNotFoundError as error:
            yield from _missing(bundle, variant, error)


def _measure_mlx(bundle: _Bundle, variant: Variant, progress: Progress) -> _Measurements:
    from reference.prompt import load_tokenizer
    from validation.runtime_parity import RuntimeParity, measure_runtime
    from validation.runtimes.mlx_runtime import open_mlx

    config = MlxParityConfig(
        variant=variant.variant,
        max_questions=_max_questions(bundle, variant),
        max_images=bundle.recipe.goldens.variant_images,
    )
    return measure_runtime(
        RuntimeParity(
            target="mlx",
            variant=config.variant,
            tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
            dequantized=_dequantized(bundle, variant),
            max_questions=config.max_questions,
            max_images=config.max_images,
        ),
        goldens=bundle.goldens,
        runtime=open_mlx(bundle.folder / "mlx" / variant.variant),
        tokenizer=load_tokenizer(bundle.folder),
        progress=progress,
    )


def _dequantized(bundle: _Bundle, variant: Variant) -> SubstitutedGoldens | None:
    """What the reference with the same quantized weights returned, where there are any."""
    if not variant.quantization:
        return None
    outputs = read_outputs(bundle.folder / quantized_goldens(variant.quantization))
    if isinstance(outputs, NoOutputs):
        raise BundleError(
            f"{bundle.folder}: the goldens of the quantization {variant.quantization} are missing",
            hint="build the bundle again, or copy it again from where it was whole",
        )
    return SubstitutedGoldens(bundle.goldens, outputs.arrays)


def _coreml(
    bundle: _Bundle, progress: Progress, core_ml: UnitSettings, units: list[UnitReport]
) -> Iterator[Measurement]:
    """float32 first, where it is shipped: float16 is compared with what it returned.

    Adds to `units` how Core ML did.
    """
    shipped = shipped_of(bundle.manifest.variants, "coreml")
    plain = ("float32", "float16")
    sibling: PackageOutputs | NoOutputs
    sibling = NoOutputs(reason="the float32 packages are not in the bundle")
    order = [*plain, *(v.variant for v in shipped if v.variant not in plain)]
    for variant in sorted(shipped, key=lambda v: order.index(v.variant)):
        try:
            found = _measure_coreml(bundle, variant, progress, sibling=sibling, core_ml=core_ml)
        except ModuleNotFoundError as error:
            yield from _missing(bundle, variant, error)
            continue
        yield from found.measurements
        if isinstance(found, UnitMeasured):
            units.append(found.report)
        if variant.variant == "float32":
            sibling = found.outputs or NoOutputs(reason="the float32 packages were not executed")


def _measure_coreml(
    bundle: _Bundle,
    variant: Variant,
    progress: Progress,
    *,
    sibling: PackageOutputs | NoOutputs,
    core_ml: UnitSettings,
) -> Measured | UnitMeasured:
    """In Core ML, in a process of its own, where it is there; else in the ML Program executor."""
    from reference.prompt import load_tokenizer

    config = CoreMLParityConfig(
        variant=variant.variant,
        precision="float32" if variant.variant == "float32" else "float16",
        max_questions=_max_questions(bundle, variant),
    )
    paths = packages_of(bundle.folder, bundle.manifest, variant.variant)
    packages = Packages(
        vision=paths.vision,
        whole=paths if has_language(variant) else None,
        precision=config.precision,
        compressed=variant.variant if variant.quantization else "",
    )
    dequantized = _dequantized(bundle, variant)
    parity = CoreMLParity(
        tolerance=Tolerance(rtol=config.rtol, atol=config.atol),
        sibling=sibling if dequantized is None else dequantized_outputs(dequantized),
        max_questions=config.max_questions,
    )
    tokenizer = load_tokenizer(bundle.folder)
    if core_ml.why_not(packages):
        return measure_coreml(
            parity,
            goldens=bundle.goldens,
            packages=packages,
            tokenizer=tokenizer,
            progress=progress,
        )
    (unit,) = measure_coreml_units(
        parity,
        goldens=bundle.goldens,
        packages=packages,
        tokenizer=tokenizer,
        progress=progress,
        settings=core_ml,
    )
    return unit


def _max_questions(bundle: _Bundle, variant: Variant) -> int:
    slow = variant.target == "mlx" or variant.quantization
    return bundle.recipe.goldens.variant_questions if slow else ALL_QUESTIONS


def _missing(
    bundle: _Bundle, variant: Variant, error: ModuleNotFoundError
) -> Iterator[Measurement]:
    reason = f"needs {error.name}, which is not installed"
    yield from _not_run(bundle, target=variant.target, variant=variant.variant, reason=reason)


def _not_shipped(bundle: _Bundle) -> Iterator[Measurement]:
    """For each variant that the bundle lacks the reason why nothing was measured."""
    for variant in bundle.manifest.variants:
        if not variant.files:
            yield from _not_run(
                bundle,
                target=variant.target,
                variant=variant.variant,
                reason="not in the bundle",
            )


def _not_run(bundle: _Bundle, *, target: str, variant: str, reason: str) -> Iterator[Measurement]:
    """One per metric that a gate asks for, whatever side it is asked from."""
    asked = dict.fromkeys(
        (gate.component, gate.metric)
        for gate in bundle.recipe.gates
        if (gate.target, gate.variant) == (target, variant)
    )
    for component, metric in asked:
        yield Measurement(
            target=target,
            variant=variant,
            component=component,
            metric=metric,
            value=None,
            num_cases=0,
            not_run_reason=reason,
        )
