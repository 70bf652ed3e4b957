"""Core ML parity with every compute unit in a process of its own.

One set of measurements for each unit, complete in itself: `judge` takes one at a time. Beside the
components there are `process` (it lived to the end) and `caches` (what the decoder remembers was
read back and is what it must be), both as `structure`, which no gate has to ask for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reference.prompt import PromptTokenizer
from validation.coreml_parity import CoreMLParity, Measured, measure_coreml
from validation.coreml_run import nothing_executed
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.package_outputs import PackageOutputs
from validation.progress import Progress
from validation.runtimes.core_ml_executor import Opened, Packages
from validation.runtimes.coreml_units import UnitReport, UnitSettings, run_units
from validation.tally import Tally


@dataclass(frozen=True, kw_only=True)
class UnitMeasured:
    """What came out of one compute unit.

    Attributes:
        report: how it went, and where Core ML would run what.
        measurements: of every component, the process and the caches.
        outputs: as in `Measured`; None where nothing ran to the end.
    """

    report: UnitReport
    measurements: tuple[Measurement, ...]
    outputs: PackageOutputs | None


def measure_coreml_units(
    config: CoreMLParity,
    *,
    goldens: Goldens,
    packages: Packages,
    tokenizer: PromptTokenizer,
    progress: Progress,
    settings: UnitSettings,
) -> tuple[UnitMeasured, ...]:
    """As `measure_coreml`, on each compute unit in turn; one that dies fails its own rows only.

    Args:
        config: its executor is not used.
        goldens, packages, tokenizer, progress: see `measure_coreml`.
        settings: which units.

    Raises:
        PackageUnreadableError, GoldenError: what is given is missing or damaged.
    """

    def measure(opened: Opened) -> Measured:
        return measure_coreml(
            replace(config, executor=lambda _: opened),
            goldens=goldens,
            packages=packages,
            tokenizer=tokenizer,
            progress=progress,
        )

    rows = goldens.inputs_embeds(goldens.index.cases[0])
    runs = run_units(packages, measure, cache_rows=rows, settings=settings)
    return tuple(
        UnitMeasured(
            report=run.report,
            measurements=(
                *(run.result.measurements if run.result is not None else ()),
                *_about_the_unit(run.report, packages, core_ml=settings.is_core_ml),
            ),
            outputs=run.result.outputs if run.result and run.report.status == "ran" else None,
        )
        for run in runs
    )


def _about_the_unit(
    report: UnitReport, packages: Packages, *, core_ml: bool
) -> Iterator[Measurement]:
    if report.status == "not run":
        yield from nothing_executed(packages, report.reason)
        return
    process, caches = (
        Tally(
            target="coreml",
            variant=packages.precision,
            component=component,
            executor=report.executor,
            executed_by_core_ml=core_ml and bool(report.executor),
        )
        for component in ("process", "caches")
    )
    died = report.status == "failed" and not report.cache_problems
    process.structure((report.reason,) if died else (), case=report.compute_units)
    yield from process.measurements()
    if report.caches_reason:
        yield from caches.not_run(("structure",), report.caches_reason)
    else:
        caches.structure(report.cache_problems, case=report.compute_units)
        yield from caches.measurements()
