"""What a latency run holds: raw samples of every phase, and all that is needed to read them.

A phase keeps its samples by process: those of one process share its memory layout and its moment,
so that the difference between processes can be told from the difference between samples.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference.errors import UserError
from validation.latency.environment import Environment
from validation.typed_json import read_json, render_json

SCHEMA = 1
_HINT = "`fastvlm-compile latency DIR --json FILE` writes one"

LOAD = "load"
VISION = "vision"
EMBEDDING = "projector_embedding"
PREFILL = "prefill"
"""Followed by the length: `prefill.64`."""
DECODE = "decode"
FIRST_TOKEN = "time_to_first_token"
END_TO_END = "end_to_end"

KINDS = (LOAD, VISION, EMBEDDING, PREFILL, DECODE, FIRST_TOKEN, END_TO_END)
"""In the order in which they are shown."""


class SamplesError(UserError):
    """A file of samples is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The least that one run of a phase has to do, computed from the model and its files."""

    bytes_read: int
    """Weights as they are stored, the cache, inputs; 0 where the files could not tell."""
    operations: int
    """Multiplications and additions of the matrices and convolutions: two for each product."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of one variant."""

    name: str
    blocks: tuple[tuple[float, ...], ...]
    """Seconds of every counted run; one block for each process, in the order of time."""
    num_items: int
    """Tokens, positions or images of one run."""
    item: str
    """What they are: `token`, `image`; empty where a rate makes no sense."""
    work: Work | None
    """None where nothing bounds it that we could compute."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """All samples, in the order of time."""
        return tuple(sample for block in self.blocks for sample in block)


@dataclass(frozen=True, kw_only=True)
class VariantRun:
    """All phases of one variant in one runtime."""

    runtime: str
    variant: str
    """`int4`, of Core ML with the compute units: `float16 cpu_only`."""
    executor: str
    status: Literal["measured", "not run"]
    reason: str
    """Why it was not run; empty where it was."""
    phases: tuple[Phase, ...]
    peak_memory_bytes: tuple[int, ...]
    """Of the whole process, interpreter and libraries included; one for each process."""
    notes: tuple[str, ...]
    """What a reader must know: what was left out, what a phase does not hold."""

    @property
    def key(self) -> str:
        """`onnxruntime/int4`."""
        return f"{self.runtime}/{self.variant}"


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What the machine can do, measured in the same run with as many threads."""

    read_bytes_per_s: float
    """Reading memory that no cache holds."""
    sgemm_flop_per_s: float
    """Multiplying large float32 matrices."""
    drift: float
    """The slower of two measurements, before and after, over the faster; 1 is a steady machine."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What else went on."""

    load_before: float
    """Mean number of runnable processes in the last minute, ours not among them."""
    others_during: float
    """Processors that others kept busy while we measured, on average; -1 where it is not told."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What was asked for."""

    threads: int
    prompt_lengths: tuple[int, ...]
    min_seconds: float
    """Of each phase in each process."""
    min_runs: int


@dataclass(frozen=True, kw_only=True)
class LatencyRun:
    """A session of measuring one bundle."""

    bundle: str
    """Its name, not its path."""
    bundle_digest: str
    started_at: str
    """UTC, `2026-01-31T12:00:00Z`."""
    settings: Settings
    environment: Environment
    conditions: Conditions
    roofline: Roofline | None
    variants: tuple[VariantRun, ...]

    def measured(self) -> Mapping[str, VariantRun]:
        """Key -> what was measured."""
        return {run.key: run for run in self.variants if run.status == "measured"}


def kind_of(phase: str) -> str:
    """`prefill.64` -> `prefill`."""
    return phase.partition(".")[0]


def render_run(run: LatencyRun) -> str:
    """The file of a run."""
    return render_json(run, schema=SCHEMA)


def read_run(path: Path) -> LatencyRun:
    """Reads what `latency --json` wrote.

    Raises:
        SamplesError: the file is missing, damaged, of another schema, or a time is no time.
    """
    run = read_json(
        path, LatencyRun, schema=SCHEMA, error=lambda what: SamplesError(what, hint=_HINT)
    )
    check_run(path, run)
    return run


def check_run(path: Path, run: LatencyRun) -> None:
    """What the types of a run do not say.

    Raises:
        SamplesError: a time is no time, or a phase has none.
    """
    for variant in run.variants:
        for phase in variant.phases:
            if not all(0 < sample < float("inf") for sample in phase.samples_s):
                raise SamplesError(
                    f"{path}: {variant.key}, {phase.name}: a sample is no time above 0", hint=_HINT
                )
            if variant.status == "measured" and not phase.samples_s:
                raise SamplesError(f"{path}: {variant.key}, {phase.name}: no samples", hint=_HINT)


def digest_of(run: LatencyRun) -> str:
    """sha256 that names a run: the same samples have the same."""
    return hashlib.sha256(render_run(run).encode()).hexdigest()
