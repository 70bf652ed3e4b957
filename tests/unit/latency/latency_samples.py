"""Samples as a machine gives them: skewed, with outliers, drift, and neighbours that resemble."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from validation.latency.environment import Environment
from validation.latency.samples import (
    Conditions,
    LatencyRun,
    Phase,
    Roofline,
    Settings,
    VariantRun,
    Work,
)

ENVIRONMENT = Environment(
    processor="a processor",
    num_cores=2,
    threads=2,
    governor="performance",
    memory_bytes=8 << 30,
    system="Linux 6.1.0 x86_64",
    python="3.11.9",
    versions={"numpy": "2.3.5", "onnxruntime": "1.31.1"},
)


def noisy_block(seed: int, *, num_runs: int = 120, median_s: float = 0.02) -> tuple[float, ...]:
    """One process: lognormal noise of 3 %, a level of its own, slow drift, 4 % of outliers."""
    random = np.random.default_rng(seed)
    level = median_s * (1 + random.normal(0, 0.003))
    drift = 1 + random.normal(0, 0.01) * np.linspace(0, 1, num_runs)
    samples = level * drift * random.lognormal(0, 0.03, num_runs)
    slow = random.random(num_runs) < 0.04
    samples[slow] *= random.uniform(1.5, 6, int(slow.sum()))
    return tuple(round(float(sample), 9) for sample in samples)


def noisy_blocks(seed: int, *, factor: float = 1.0) -> tuple[tuple[float, ...], ...]:
    """Four processes, `factor` times as slow."""
    blocks = [noisy_block(seed * 100 + index) for index in range(4)]
    return tuple(tuple(sample * factor for sample in block) for block in blocks)


def phase(name: str, blocks: Sequence[Sequence[float]], work: Work | None = None) -> Phase:
    return Phase(
        name=name,
        blocks=tuple(tuple(block) for block in blocks),
        num_items=1,
        item="token",
        work=work,
    )


def run_of(*phases: Phase, variant: str = "int4", digest: str = "0" * 64) -> LatencyRun:
    measured = VariantRun(
        runtime="onnxruntime",
        variant=variant,
        executor="onnxruntime 1.31.1 (CPUExecutionProvider)",
        status="measured",
        reason="",
        phases=phases,
        peak_memory_bytes=(100_000_000,),
        notes=(),
    )
    return LatencyRun(
        bundle="tiny",
        bundle_digest=digest,
        started_at="2026-01-31T12:00:00Z",
        settings=Settings(threads=2, prompt_lengths=(64,), min_seconds=2.0, min_runs=10),
        environment=ENVIRONMENT,
        conditions=Conditions(load_before=0.1, others_during=0.05),
        roofline=Roofline(read_bytes_per_s=2e10, sgemm_flop_per_s=1e11, drift=1.01),
        variants=(measured,),
    )


def with_threads(run: LatencyRun, threads: int) -> LatencyRun:
    return replace(run, environment=replace(run.environment, threads=threads))
