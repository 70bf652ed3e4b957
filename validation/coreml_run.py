"""The tallies of one variant's packages under one executor, and what could not be measured."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from validation.coreml_components import Component
from validation.end_to_end_parity import TASK_METRICS
from validation.measurement import Measurement
from validation.package_outputs import NoOutputs, PackageOutputs
from validation.runtimes.base import Floats
from validation.runtimes.core_ml_executor import Opened, Packages
from validation.tally import Tally

if TYPE_CHECKING:
    from validation.runtimes.package_peaks import PackagePeaks

NOTHING_EXECUTED = "package description read, nothing executed"
"""The executor of a check that looks at what a package says of itself."""

TENSOR_METRICS = (
    "relative_l2",
    "max_abs",
    "cosine",
    "psnr_db",
    "smallest_atol",
    "smallest_rtol",
)
LOGIT_METRICS = (*TENSOR_METRICS, "kl_mean", "kl_max", "top1_agreement", "top5_agreement")
_ANSWER_METRICS = (*LOGIT_METRICS, "greedy_agreement", "first_difference", *TASK_METRICS)

_PACKAGES = {"vision": "fastvithd", "projector": "projector", "decoder": "decoder"}
"""Component -> how the names of its packages begin."""
_METRICS = {"vision": TENSOR_METRICS, "projector": TENSOR_METRICS, "decoder": LOGIT_METRICS}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One variant under one executor.

    Attributes:
        packages: what is run.
        opened: what runs it.
        sibling: what float16 arithmetic is compared with, see `CoreMLParity`.
        outputs: what these packages return.
    """

    packages: Packages
    opened: Opened
    sibling: PackageOutputs | NoOutputs
    outputs: dict[str, Floats] = field(default_factory=dict)
    _tallies: dict[str, Tally] = field(default_factory=dict)
    _not_run: list[Measurement] = field(default_factory=list)

    def tally(self, component: str) -> Tally:
        """The component's, made when it is first asked for."""
        if component not in self._tallies:
            self._tallies[component] = Tally(
                target="coreml",
                variant=self.packages.variant,
                component=component,
                executor=self.opened.vision.executor,
                executed_by_core_ml=self.opened.vision.executed_by_core_ml,
            )
        return self._tallies[component]

    def component(self, name: str) -> Component:
        """A part of the model with all that it is compared with."""
        if self.packages.precision == "float32":
            return Component(name=name, total=self.tally(name), outputs=self.outputs)
        total, precision = self.tally(name), self.tally(f"{name}_precision")
        comparable = self._comparable()
        if isinstance(comparable, NoOutputs):
            self._not_run.extend(precision.not_run(_METRICS[name], comparable.reason))
            return Component(name=name, total=total, outputs=self.outputs)
        return Component(
            name=name,
            total=total,
            precision=precision,
            sibling=comparable.arrays,
            outputs=self.outputs,
        )

    def look_inside(self) -> None:
        """How far values inside the float16 packages reached until now; not looked at after it."""
        if self.packages.precision == "float32":
            return
        for name in components(self.packages):
            if self.opened.peaks is None:
                reason = "Core ML does not show the values inside a package"
                self._not_run.extend(self.tally(name).not_run(("fp16_peak",), reason))
            else:
                add_peaks(self.tally(name), self.opened.peaks, _PACKAGES[name])
        if self.opened.peaks is not None:
            self.opened.peaks.stop()

    def measurements(self) -> Iterator[Measurement]:
        """All components in the order in which they were begun, then what was not run."""
        for tally in self._tallies.values():
            yield from tally.measurements()
        yield from self._not_run

    def result(self) -> PackageOutputs:
        """What the packages returned, by whose hand."""
        return PackageOutputs(
            executor=self.opened.vision.executor,
            executed_by_core_ml=self.opened.vision.executed_by_core_ml,
            arrays=self.outputs,
        )

    def _comparable(self) -> PackageOutputs | NoOutputs:
        """The float32 outputs, if they come from the same kind of executor; a compressed variant is
        compared with the reference instead, whoever executes it."""
        sibling = self.sibling
        if (
            not self.packages.compressed
            and isinstance(sibling, PackageOutputs)
            and sibling.executed_by_core_ml != self.opened.vision.executed_by_core_ml
        ):
            return NoOutputs(reason=f"the float32 packages ran elsewhere: {sibling.executor}")
        return sibling


def components(packages: Packages) -> tuple[str, ...]:
    """What is compared with the reference and, if it is float16, with float32."""
    return ("vision",) if packages.whole is None else tuple(_PACKAGES)


def nothing_executed(packages: Packages, reason: str) -> Iterator[Measurement]:
    """Every number of a variant that nothing here can execute."""
    expected: dict[str, tuple[str, ...]] = {}
    for name in components(packages):
        expected[name] = _METRICS[name]
        if packages.precision == "float16":
            expected[name] = (*_METRICS[name], "fp16_peak")
            expected[f"{name}_precision"] = _METRICS[name]
    if packages.whole is not None:
        expected |= {"embedding": TENSOR_METRICS, "end_to_end": _ANSWER_METRICS}
    for name, metrics in expected.items():
        tally = Tally(target="coreml", variant=packages.variant, component=name, executor="")
        yield from tally.not_run(metrics, reason)


def add_peaks(tally: Tally, peaks: "PackagePeaks", part: str) -> None:
    """The largest magnitude of each op; one that is not finite is a structural problem.

    Args:
        tally: of the component.
        peaks: of all packages.
        part: how the names of the component's packages begin.
    """
    found = list(peaks.of(part))
    for package, peak in found:
        tally.add("fp16_peak", peak.fp16_share, case=f"{package}: {peak.kind} {peak.name}")
        if peak.num_non_finite:
            problem = f"{peak.num_non_finite} values are infinite or not numbers"
            tally.structure((problem,), case=f"{package}: {peak.kind} {peak.name}")
    if near := [f"{package}: {peak}" for package, peak in found if peak.near_overflow]:
        more = f" and {len(near) - 3} more" if len(near) > 3 else ""
        tally.detail("fp16_peak", f"near overflow: {'; '.join(near[:3])}{more}")
