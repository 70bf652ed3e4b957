"""All that a report of a bundle tells, in one tree: the page and the JSON are two spellings of it.

`schema.json` describes the JSON; `json_schema` derives it from these classes, and a test holds the
two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastvlm_compile.report.variants import VariantQuality
from validation.consumers.outcome import Outcome
from validation.gates import GateRow
from validation.latency.samples import LatencyRun
from validation.latency.summary import Summary
from validation.layer_curves import LayerCurve

SCHEMA = 1

VerdictStatus = Literal["passed", "failed", "not judged"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all gates together say."""

    status: VerdictStatus
    """`not judged`: no gate was, for want of gates or of what runs them."""
    num_passed: int
    num_failed: int
    num_not_run: int
    judged_by: str
    """Whose gates: empty for those of the build, else the recipe that was given for this report."""
    notes: tuple[str, ...]
    """What must be known of who computed the numbers."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the bundle was made from and what it expects."""

    checkpoint_digest: str
    license: str
    source_revision: str
    tools: Mapping[str, str]
    recipe: str
    image_size: int
    fit: str
    tokens_per_image: int
    context_length: int


@dataclass(frozen=True, kw_only=True)
class VariantLine:
    """One variant that was measured or shipped."""

    files: tuple[str, ...]
    """In the bundle; none if it was measured and not shipped."""
    quality: VariantQuality
    num_passed: int
    num_failed: int
    num_not_run: int


@dataclass(frozen=True, kw_only=True)
class PhaseLine:
    """One phase of one variant in one runtime, in short."""

    runtime: str
    variant: str
    phase: str
    summary: Summary
    items_per_s: float | None
    """At the median; None where a rate makes no sense."""
    item: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times that were measured."""

    phases: tuple[PhaseLine, ...]
    warnings: tuple[str, ...]
    same_bundle: bool
    """Whether the samples say that they are of this very bundle."""
    run: LatencyRun
    """The samples themselves, and the machine."""


@dataclass(frozen=True, kw_only=True)
class StageLine:
    """What a stage of the build cost when it was last built."""

    stage: str
    duration_s: float | None
    """None where the store has its result no more."""
    peak_memory_bytes: int | None
    size_bytes: int | None
    from_store: bool | None
    """Whether the latest build that asked for it found it there; None where no build told."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of the build, or why nothing is known of them."""

    lines: tuple[StageLine, ...]
    reason: str
    """Why there are no lines; empty where there are."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All of it."""

    name: str
    manifest_digest: str
    """The `digest` in `manifest.json`."""
    num_files: int
    size_bytes: int
    verdict: Verdict
    source: Source
    variants: tuple[VariantLine, ...]
    gates: tuple[GateRow, ...]
    layers: tuple[LayerCurve, ...]
    """One for each quantization; none where the build measured none."""
    latency: Latency | None
    """None where nothing was measured."""
    stages: Stages
    consumers: tuple[Outcome, ...]
