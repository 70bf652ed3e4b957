"""A session: every variant of one bundle, or of two turn by turn, each in processes of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fastvlm_compile.bundle.annotations import digest_of_rest
from fastvlm_compile.bundle.layout import RuntimeName, answering
from fastvlm_compile.bundle.manifest import Manifest, read_manifest
from fastvlm_compile.errors import BundleError
from fastvlm_compile.latency.process import probe_speeds, time_variant
from fastvlm_compile.latency.request import (
    Job,
    Request,
    RuntimeChoice,
    Speeds,
    Units,
    not_run,
)
from fastvlm_compile.latency.surroundings import (
    OthersWatch,
    describe_environment,
    load_average,
)
from fastvlm_compile.progress import Progress
from validation.latency.samples import (
    Conditions,
    LatencyRun,
    Roofline,
    Settings,
    VariantRun,
)

ANSWERS_OF: dict[RuntimeChoice, RuntimeName] = {
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "torch-compiled": "torch",
    "mlx": "mlx",
    "coreml": "coreml",
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be measured."""

    runtimes: tuple[RuntimeChoice, ...]
    variants: tuple[str, ...]
    """Empty for all that a bundle has."""
    units: tuple[Units, ...]
    settings: Settings
    num_processes: int
    """Of each variant of each bundle."""
    num_new_tokens: int


def measure(bundles: Sequence[Path], order: Order, progress: Progress) -> tuple[LatencyRun, ...]:
    """One run for each bundle.

    Two bundles take turns, A B B A A B B A: what drifts slowly meets both alike.

    Raises:
        BundleError: a bundle is damaged, or has no such variant.
    """
    manifests = [read_manifest(bundle) for bundle in bundles]
    jobs = [
        jobs_of(bundle, manifest, order)
        for bundle, manifest in zip(bundles, manifests, strict=True)
    ]
    environment = describe_environment(order.runtimes, order.settings.threads)
    started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    load_before, watch = load_average(), OthersWatch()
    turns = _turns(jobs, order.num_processes)
    steps = _Steps(progress, len(turns) + 2)
    before = _probe(order, steps)
    runs: dict[tuple[int, Job], VariantRun] = {}
    for which, job in turns:
        run = _time(bundles[which], job, order, steps)
        key = (which, job)
        runs[key] = _merged(runs[key], run) if key in runs else run
    roofline = _roofline(before, _probe(order, steps))
    conditions = Conditions(load_before=load_before, others_during=watch.processors())
    return tuple(
        LatencyRun(
            bundle=manifests[which].name,
            bundle_digest=digest_of_rest(manifests[which]),
            started_at=started_at,
            settings=order.settings,
            environment=environment,
            conditions=conditions,
            roofline=roofline,
            variants=tuple(runs[which, job] for job in jobs[which]),
        )
        for which in range(len(bundles))
    )


def jobs_of(bundle: Path, manifest: Manifest, order: Order) -> tuple[Job, ...]:
    """The variants that are meant, in the manifest's order.

    Raises:
        BundleError: none is there, or one that was named is not.
    """
    found: list[Job] = []
    known: list[str] = []
    for runtime in order.runtimes:
        names = [each.variant for each in answering(manifest.variants, ANSWERS_OF[runtime])]
        known += names
        units: tuple[Units, ...] = order.units if runtime == "coreml" else ("all",)
        found += [
            Job(runtime=runtime, variant=name, units=unit)
            for name in names
            if not order.variants or name in order.variants
            for unit in units
        ]
    if lost := [name for name in order.variants if name not in known]:
        raise BundleError(
            f"{bundle}: no variant {', '.join(lost)} for the runtime {', '.join(order.runtimes)}",
            hint=f"known: {', '.join(dict.fromkeys(known)) or 'none'}",
        )
    if not found:
        raise BundleError(
            f"{bundle}: nothing in it for the runtime {', '.join(order.runtimes)}",
            hint="build it with that target, or name another --runtime",
        )
    return tuple(found)


class _Steps:
    """Counts turns; a turn tells its own phases."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def tell(self, what: str) -> None:
        self._progress(self._done, self._total, what)

    def end(self) -> None:
        self._done += 1


def _turns(jobs: Sequence[Sequence[Job]], num_processes: int) -> list[tuple[int, Job]]:
    """(bundle, job) in the order of time; the jobs that all bundles share take turns."""
    turns = []
    for job in dict.fromkeys(job for each in jobs for job in each):
        holders = [which for which, each in enumerate(jobs) if job in each]
        for turn in range(num_processes):
            turns += [(which, job) for which in (holders if turn % 2 == 0 else holders[::-1])]
    return turns


def _time(bundle: Path, job: Job, order: Order, steps: _Steps) -> VariantRun:
    label = f"{bundle.name} {job.runtime}/{job.label}"
    steps.tell(label)
    reason = why_not(job)
    run = not_run(job, reason)
    if not reason:
        request = Request(
            bundle=str(bundle.resolve()),
            job=job,
            settings=order.settings,
            num_new_tokens=order.num_new_tokens,
        )
        run = time_variant(request, lambda phase: steps.tell(f"{label}: {phase}"))
    steps.end()
    return run


def why_not(job: Job) -> str:
    """Why a job cannot run on this system; empty where it can be tried."""
    if job.runtime != "coreml":
        return ""
    from validation.runtimes.coreml_runtime import why_unavailable

    return why_unavailable()


def _merged(one: VariantRun, other: VariantRun) -> VariantRun:
    """Blocks of two processes; a process that failed makes the variant `not run`."""
    if one.status == "not run" or other.status == "not run":
        return one if one.status == "not run" else other
    pairs = zip(one.phases, other.phases, strict=True)
    phases = [replace(first, blocks=first.blocks + second.blocks) for first, second in pairs]
    peaks = one.peak_memory_bytes + other.peak_memory_bytes
    return replace(one, phases=tuple(phases), peak_memory_bytes=peaks)


def _probe(order: Order, steps: _Steps) -> Speeds | None:
    steps.tell("roofline of the machine")
    request = Request(bundle="", job=None, settings=order.settings, num_new_tokens=1)
    speeds = probe_speeds(request, lambda _: steps.tell("roofline of the machine"))
    steps.end()
    return speeds


def _roofline(before: Speeds | None, after: Speeds | None) -> Roofline | None:
    """The better of two, for what interferes only ever slows down."""
    if before is None or after is None:
        return None
    reads = (before.read_bytes_per_s, after.read_bytes_per_s)
    products = (before.sgemm_flop_per_s, after.sgemm_flop_per_s)
    return Roofline(
        read_bytes_per_s=max(reads),
        sgemm_flop_per_s=max(products),
        drift=max(max(reads) / min(reads), max(products) / min(products)),
    )
