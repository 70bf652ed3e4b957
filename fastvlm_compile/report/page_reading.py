"""A bundle -> everything that its report tells. Reads the bundle's own files, runs nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastvlm_compile.bundle.annotations import digest_of_rest
from fastvlm_compile.bundle.licence import has_random_weights
from fastvlm_compile.bundle.manifest import MANIFEST_NAME, Manifest, Variant, read_manifest
from fastvlm_compile.bundle.quality import PARITY
from fastvlm_compile.bundle.times import LATENCY_FILE
from fastvlm_compile.errors import BundleError
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.report.page_data import (
    Latency,
    PhaseLine,
    ReportData,
    Source,
    VariantLine,
    Verdict,
    VerdictStatus,
)
from fastvlm_compile.report.page_stages import stages_of
from fastvlm_compile.report.variants import FILES, Cell, VariantQuality, variant_rows
from fastvlm_compile.store import Store
from fastvlm_compile.tree_digest import sha256_of
from validation.gate_table import executor_notes
from validation.gates import GateRow, judge
from validation.latency.pair import read_one
from validation.latency.samples import LatencyRun
from validation.latency.summary import summarize
from validation.latency.table import warnings_of
from validation.layer_curves import LAYERS_FILE, LayerCurve, read_layers
from validation.measurement import Measurement
from validation.parity_file import ParityReport, read_parity
from validation.typed_json import from_plain, to_plain

"""Where samples are looked for if no file is named."""
LAYERS = f"reports/{LAYERS_FILE}"
_MEND = "build the bundle again, or copy it again from where it was whole"


_Judged = tuple[str, str, str]
"""Target, variant, status."""


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What to report on."""

    bundle: Path
    store: Store
    """Where what the build cost may be known; it need not be there, and nothing is written."""
    latency: Path | None = None
    """Samples of `fastvlm-compile latency --json FILE`; those in the bundle if not given."""
    recipe: Recipe | None = None
    """Whose gates judge the stored measurements instead of the build's."""


def read_report(request: ReportRequest) -> ReportData:
    """All that is known of a bundle.

    Raises:
        BundleError: no bundle, no measurements in it, or a file that is read here was changed
            since the build.
        UserError: a file of it is damaged.
        StoreError: the store's record of this build is damaged.
        SamplesError: the samples are damaged or of another bundle.
    """
    folder = request.bundle
    manifest = _checked_types(read_manifest(folder), folder)
    parity = _parity(folder, manifest)
    gates = parity.gates
    if request.recipe is not None:
        random_weights = has_random_weights(manifest)
        gates = judge(parity.measurements, request.recipe.gates, random_weights=random_weights)
    return ReportData(
        name=manifest.name,
        manifest_digest=_digest(folder),
        num_files=len(manifest.files) + 1,
        size_bytes=sum(file.size_bytes for file in manifest.files),
        verdict=_verdict(gates, request.recipe),
        source=_source(manifest),
        variants=_variants(manifest, variant_rows(parity.measurements), gates),
        gates=gates,
        layers=_layers(folder, manifest),
        latency=_latency(request, manifest),
        stages=stages_of(folder, manifest.name, request.store),
        consumers=manifest.consumers,
    )


def _checked_types(manifest: Manifest, folder: Path) -> Manifest:
    """A manifest whose digest is right may still have been written by hand."""
    try:
        from_plain(to_plain(manifest), Manifest)
    except (TypeError, ValueError, AttributeError) as error:
        where = folder / MANIFEST_NAME
        raise BundleError(f"{where}: not a bundle's manifest: {error}", hint=_MEND) from None
    return manifest


def _parity(folder: Path, manifest: Manifest) -> ParityReport:
    if not (folder / PARITY).is_file():
        raise BundleError(
            f"{folder}: no {PARITY}, so nothing is known of what it is worth",
            hint="build the bundle again: every build writes it",
        )
    report = read_parity(folder / PARITY)
    _refuse_changed(folder, manifest, PARITY)
    return report


def _layers(folder: Path, manifest: Manifest) -> tuple[LayerCurve, ...]:
    """None in a bundle without quantized variants, or of a build that did not measure them yet."""
    if not (folder / LAYERS).is_file() and all(file.path != LAYERS for file in manifest.files):
        return ()
    report = read_layers(folder / LAYERS)
    _refuse_changed(folder, manifest, LAYERS)
    return report.curves


def _refuse_changed(folder: Path, manifest: Manifest, name: str) -> None:
    """A file that the manifest does not know as it is."""
    recorded = next((file for file in manifest.files if file.path == name), None)
    if recorded is None or recorded.sha256 != sha256_of(folder / name):
        raise BundleError(
            f"{folder / name}: this is not the file that the build wrote",
            hint=f"`fastvlm-compile verify {folder}` lists all that is wrong",
        )


def _verdict(gates: Sequence[GateRow], recipe: Recipe | None) -> Verdict:
    counts = Counter(row.status for row in gates)
    status: VerdictStatus = "passed" if counts["passed"] else "not judged"
    return Verdict(
        status="failed" if counts["failed"] else status,
        num_passed=counts["passed"],
        num_failed=counts["failed"],
        num_not_run=counts["not run"],
        judged_by=recipe.name if recipe is not None else "",
        notes=executor_notes(gates),
    )


def _source(manifest: Manifest) -> Source:
    provenance, contract = manifest.provenance, manifest.contract
    return Source(
        checkpoint_digest=provenance.checkpoint_digest,
        license=provenance.license,
        source_revision=provenance.source_revision,
        tools=dict(sorted(provenance.tools.items())),
        recipe=provenance.recipe,
        image_size=contract.image_size,
        fit=contract.fit,
        tokens_per_image=contract.tokens_per_image,
        context_length=contract.context_length,
    )


def _variants(
    manifest: Manifest, rows: Sequence[VariantQuality], gates: Sequence[GateRow]
) -> tuple[VariantLine, ...]:
    """What was measured, then what was shipped without being measured."""
    shipped = {(v.target, v.variant): v for v in manifest.variants if v.files}
    measured = {(row.target, row.variant): row for row in rows}
    statuses: Counter[_Judged] = Counter((row.target, row.variant, row.status) for row in gates)
    return tuple(
        _variant(key, measured.get(key), shipped.get(key), statuses)
        for key in dict.fromkeys((*measured, *shipped))
    )


def _variant(
    key: tuple[str, str],
    measured: VariantQuality | None,
    shipped: Variant | None,
    statuses: Counter[_Judged],
) -> VariantLine:
    (quality,) = (measured,) if measured is not None else variant_rows((_unmeasured(*key),))
    if shipped is not None and quality.size_bytes.value is None:
        quality = replace(
            quality,
            size_bytes=Cell(value=float(shipped.size_bytes), num_cases=1),
            bits_per_weight=Cell(value=float(shipped.bits_per_weight), num_cases=1),
        )
    return VariantLine(
        files=shipped.files if shipped is not None else (),
        quality=quality,
        num_passed=statuses[(*key, "passed")],
        num_failed=statuses[(*key, "failed")],
        num_not_run=statuses[(*key, "not run")],
    )


def _unmeasured(target: str, variant: str) -> Measurement:
    """Stands for a variant of which the report has nothing."""
    return Measurement(
        target=target,
        variant=variant,
        component=FILES,
        metric="size_bytes",
        value=None,
        not_run_reason="not measured",
    )


def _latency(request: ReportRequest, manifest: Manifest) -> Latency | None:
    own = request.bundle / LATENCY_FILE
    path = request.latency or (own if own.is_file() else None)
    if path is None:
        return None
    run = read_one(path)
    if run.bundle != manifest.name:
        raise BundleError(
            f"{path}: these times are of the bundle {run.bundle!r}, not of {manifest.name!r}",
            hint=f"`fastvlm-compile latency {request.bundle} --json FILE` measures this one",
        )
    return Latency(
        phases=_phases(run),
        warnings=warnings_of(run),
        same_bundle=run.bundle_digest == digest_of_rest(manifest),
        run=run,
    )


def _digest(folder: Path) -> str:
    """The digest in a manifest that was read before, so it is right."""
    document: dict[str, str] = json.loads((folder / MANIFEST_NAME).read_bytes())
    return document["digest"]


def _phases(run: LatencyRun) -> tuple[PhaseLine, ...]:
    lines = []
    for each in run.measured().values():
        for phase in each.phases:
            summary = summarize(phase.samples_s)
            lines.append(
                PhaseLine(
                    runtime=each.runtime,
                    variant=each.variant,
                    phase=phase.name,
                    summary=summary,
                    items_per_s=phase.num_items / summary.p50_s if phase.item else None,
                    item=phase.item,
                )
            )
    return tuple(lines)
