"""Every compute unit of a Mac in a process of its own, one after the other.

On some machines a compute unit takes the whole process along: with coremltools 9 the GPU was seen
to end it with SIGABRT inside Metal's graph compiler (ultralytics/ultralytics#24885). Such a unit
is a failed row with the signal's name, and the others are measured.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from reference.errors import UserError
from validation.runtimes.base import Floats
from validation.runtimes.compute_plan import FunctionPlan
from validation.runtimes.core_ml_executor import Opened, Packages
from validation.runtimes.core_ml_vision import why_not_runnable
from validation.runtimes.coreml_runtime import COMPUTE_UNITS, ComputeUnits, why_unavailable
from validation.runtimes.coreml_unit_messages import Opening
from validation.runtimes.coreml_unit_open import CORE_ML
from validation.runtimes.coreml_unit_process import (
    UnitEndedError,
    UnitProcess,
    UnitRefusedError,
)
from validation.runtimes.coreml_unit_runtime import UnitRuntime
from validation.runtimes.coreml_unit_states import MAX_ROWS, cache_problems
from validation.runtimes.language_layout import read_layout
from validation.typed_json import write_json

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """How units are run.

    Attributes:
        units: which, in order; the CPU first, as it is the one to trust.
        call_limit_s: a unit that takes longer for one call has failed. Compiling a package for the
            Neural Engine takes minutes for large ones.
        with_plans: whether Core ML is asked where it would run what.
        factory: `module:function` that opens the packages in the process.
        is_core_ml: whether that is Apple's Core ML.
    """

    units: tuple[ComputeUnits, ...] = ("cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")
    call_limit_s: float = 900.0
    with_plans: bool = True
    factory: str = CORE_ML
    is_core_ml: bool = True

    def __post_init__(self) -> None:
        """Raises UserError for compute units that do not exist."""
        for unit in self.units:
            if unit not in COMPUTE_UNITS:
                known = ", ".join(COMPUTE_UNITS)
                raise UserError(f"compute units '{unit}' are none of {known}")

    def why_not(self, packages: Packages) -> str:
        """Why these packages cannot be run here, empty where they can."""
        if not self.is_core_ml:
            return ""
        return why_not_runnable() if packages.whole is None else why_unavailable()


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """How it went with one choice of compute units.

    Attributes:
        compute_units: which.
        status: "failed" when the process ended, or the caches are not what they must be.
        reason: why it is not "ran".
        executor: what computed; empty where nothing was opened.
        cache_problems: see `coreml_unit_states`.
        caches_reason: why the caches were not read back; empty where they were.
        plans: where Core ML would run what.
        plans_reason: why there are none; empty where there are.
    """

    compute_units: ComputeUnits
    status: Literal["ran", "failed", "not run"]
    reason: str = ""
    executor: str = ""
    cache_problems: tuple[str, ...] = ()
    caches_reason: str = ""
    plans: tuple[FunctionPlan, ...] = ()
    plans_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class UnitRun(Generic[T]):
    """A report, and what the caller's measurement returned; None where it could not end."""

    report: UnitReport
    result: T | None


@dataclass(frozen=True, kw_only=True)
class UnitReports:
    """All reports, as `units.json` has them."""

    units: tuple[UnitReport, ...]


def run_units(
    packages: Packages,
    measure: Callable[[Opened], T],
    *,
    cache_rows: Floats | None = None,
    settings: UnitSettings,
) -> tuple[UnitRun[T], ...]:
    """Measures packages on every compute unit.

    Args:
        packages: the tower, or the whole model.
        measure: told of one unit at a time, opened; it runs here, the packages do not.
        cache_rows: embeddings [L, H] of a prompt, to read the caches back after them; at least 2,
            and only the first `MAX_ROWS` are used. None leaves that out.
        settings: which units, and how long they may take.

    Raises:
        UserError: what `measure` raises while the process of the unit lives.
    """
    unavailable = settings.why_not(packages)
    if unavailable:
        return tuple(
            UnitRun(report=_report(unit, "not run", unavailable), result=None)
            for unit in settings.units
        )
    bench = _Bench(packages=packages, measure=measure, cache_rows=cache_rows, settings=settings)
    return tuple(bench.run(unit) for unit in settings.units)


def write_unit_reports(path: Path, reports: Sequence[UnitReport]) -> None:
    """Writes reports as JSON; equal reports give equal bytes."""
    write_json(path, UnitReports(units=tuple(reports)), schema=SCHEMA_VERSION)


def unit_table(reports: Sequence[UnitReport]) -> str:
    """One line per unit."""
    lines = []
    for report in reports:
        told = f"{report.status}: {report.reason}" if report.reason else report.status
        lines.append(f"{report.compute_units:<12} {told}")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Bench(Generic[T]):
    """What is the same for every unit; see `run_units`."""

    packages: Packages
    measure: Callable[[Opened], T]
    cache_rows: Floats | None
    settings: UnitSettings

    def run(self, unit: ComputeUnits) -> UnitRun[T]:
        """Starts the process, measures, looks closer, ends the process."""
        with tempfile.TemporaryDirectory(prefix="fastvlm-unit-") as folder:
            opening = _opening(unit, self.packages, self.settings, folder)
            limit_s, log = self.settings.call_limit_s, Path(folder) / "log.txt"
            with UnitProcess(opening, call_limit_s=limit_s, log=log) as process:
                return self._run_in(process, unit)

    def _run_in(self, process: UnitProcess, unit: ComputeUnits) -> UnitRun[T]:
        core_ml = self.settings.is_core_ml
        runtime = UnitRuntime(process, self.packages, executed_by_core_ml=core_ml)
        whole = None if self.packages.whole is None else runtime
        executor = ""
        result: T | None = None
        try:
            executor = runtime.executor
            result = self.measure(Opened(vision=runtime, whole=whole))
        except (UnitEndedError, UnitRefusedError) as error:
            return UnitRun(report=_report(unit, "failed", error.message, executor), result=None)
        if process.ended:  # the measurement took it for one failure among others
            return UnitRun(report=_report(unit, "failed", process.ended, executor), result=result)
        problems, caches_reason = self._check_caches(runtime)
        plans, plans_reason = self._plans(runtime)
        report = UnitReport(
            compute_units=unit,
            status="failed" if problems else "ran",
            reason=f"the caches: {problems[0]}" if problems else "",
            executor=executor,
            cache_problems=problems,
            caches_reason=caches_reason,
            plans=plans,
            plans_reason=plans_reason,
        )
        return UnitRun(report=report, result=result)

    def _check_caches(self, runtime: UnitRuntime) -> tuple[tuple[str, ...], str]:
        """Problems, and why the caches were not looked at."""
        if self.packages.whole is None:
            return (), "the tower alone was built"
        if self.cache_rows is None:
            return (), "not asked for"
        rows = self.cache_rows[:MAX_ROWS]
        try:
            found = runtime.read_caches(rows)
        except (UnitEndedError, UnitRefusedError) as error:
            return (error.message,), ""
        return cache_problems(read_layout(self.packages.whole.language), len(rows), found), ""

    def _plans(self, runtime: UnitRuntime) -> tuple[tuple[FunctionPlan, ...], str]:
        """Plans, and why there are none. Last, as they may take the process along."""
        if not self.settings.with_plans:
            return (), "not asked for"
        try:
            return runtime.compute_plans(), ""
        except (UnitEndedError, UnitRefusedError) as error:
            return (), error.message


def _report(
    unit: ComputeUnits,
    status: Literal["failed", "not run"],
    reason: str,
    executor: str = "",
) -> UnitReport:
    return UnitReport(
        compute_units=unit,
        status=status,
        reason=reason,
        executor=executor,
        caches_reason=reason,
        plans_reason=reason,
    )


def _opening(
    unit: ComputeUnits, packages: Packages, settings: UnitSettings, folder: str
) -> Opening:
    whole = packages.whole
    return Opening(
        factory=settings.factory,
        compute_units=unit,
        vision=str(packages.vision.absolute()),
        projector=str(whole.projector.absolute()) if whole else "",
        embedding=str(whole.embedding.absolute()) if whole else "",
        language=str(whole.language.absolute()) if whole else "",
        search_path=tuple(sys.path),
        folder=folder,
    )
