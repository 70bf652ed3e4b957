"""What the parent asks of a child process, and what it hears back: one JSON object a line."""

import json
from dataclasses import dataclass
from typing import Literal

from validation.latency.samples import Settings, VariantRun
from validation.typed_json import from_plain, to_plain

RuntimeChoice = Literal["onnxruntime", "torch", "torch-compiled", "mlx", "coreml"]
RUNTIMES: tuple[RuntimeChoice, ...] = ("onnxruntime", "torch", "torch-compiled", "mlx", "coreml")

Units = Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One variant in one runtime."""

    runtime: RuntimeChoice
    variant: str
    units: Units
    """Of Core ML; without meaning elsewhere."""

    @property
    def label(self) -> str:
        """`int4`; of Core ML `float16 cpu_only`."""
        return f"{self.variant} {self.units}" if self.runtime == "coreml" else self.variant


@dataclass(frozen=True, kw_only=True)
class Request:
    """One process's work: a variant of a bundle, or with no bundle the machine itself."""

    bundle: str
    """Absolute folder; empty to measure the roofline."""
    job: Job | None
    settings: Settings
    num_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What the machine did, measured in a process of its own."""

    read_bytes_per_s: float
    sgemm_flop_per_s: float


def encode(value: object, *, kind: str) -> str:
    """A line."""
    return json.dumps({"kind": kind, "value": to_plain(value)}) + "\n"


def decode_request(line: str) -> Request:
    """The request on a line."""
    return from_plain(json.loads(line)["value"], Request)


def not_run(job: Job, reason: str) -> VariantRun:
    """A variant that could not be timed, and why."""
    return VariantRun(
        runtime=job.runtime,
        variant=job.label,
        executor="",
        status="not run",
        reason=reason,
        phases=(),
        peak_memory_bytes=(),
        notes=(),
    )
