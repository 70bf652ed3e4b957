"""The run: damage a copy, ask every judge, and prove what none of them noticed to be no damage."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np

from fastvlm_compile.corruptions.artifacts import Artifacts, References, Target
from fastvlm_compile.corruptions.fault import Context, Fault, Stale, array_faults, others, sampled
from fastvlm_compile.corruptions.faults_codes import code_kinds, zero_point_kinds
from fastvlm_compile.corruptions.faults_scales import bias_kinds, scale_kinds
from fastvlm_compile.corruptions.faults_tables import table_kinds
from fastvlm_compile.corruptions.limits import CONVERSION_SUFFIXES, is_conversion
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.tensor import Floats
from reference.errors import UserError
from validation.gates import Gate, GateRow, judge
from validation.measurement import Measurement
from validation.progress import Steps

JudgeName = Literal["identity", "conversion", "reference"]
JUDGES: tuple[JudgeName, ...] = ("identity", "conversion", "reference")

Status = Literal["caught", "equivalent", "survived", "crashed"]

KINDS = (*scale_kinds(), *bias_kinds(), *code_kinds(), *zero_point_kinds(), *table_kinds())

_CRASHES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""What a bug raises, with ValueError. A damaged file must be refused with a message."""


class IntactArtifactsFailError(UserError):
    """A judge finds fault with files that nothing was done to."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class MatrixPlan:
    """How much is damaged.

    Attributes:
        per_kind: faults of each kind and file.
        limit: faults in all, taken evenly; 0 for all.
        seed: chooses them.
    """

    per_kind: int = 2
    limit: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one fault.

    Attributes:
        fault: what was done.
        what: where exactly, and old and new.
        caught: what each judge that noticed it says.
        equivalent: whether nothing was noticed, and the file decodes to the same numbers.
        crash: what a judge raised that is no refusal; empty for none.
    """

    fault: Fault
    what: str
    caught: Mapping[JudgeName, str]
    equivalent: bool = False
    crash: str = ""

    @property
    def status(self) -> Status:
        """Caught by any judge, or the rest."""
        if self.crash:
            return "crashed"
        if self.caught:
            return "caught"
        return "equivalent" if self.equivalent else "survived"

    @property
    def is_hole(self) -> bool:
        """Whether nothing noticed and nothing excuses it."""
        return self.status in ("survived", "crashed")

    @property
    def caught_by_parity(self) -> bool:
        """Whether a runtime's numbers alone would have told."""
        return bool(self.caught.keys() & {"conversion", "reference"})


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What became of every fault of one folder."""

    target: Target
    executor: str
    outcomes: tuple[Outcome, ...]

    @property
    def holes(self) -> tuple[Outcome, ...]:
        """Faults that nothing notices and nothing excuses."""
        return tuple(outcome for outcome in self.outcomes if outcome.is_hole)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Artifacts and all that judges them.

    Attributes:
        artifacts: intact.
        references: what runtimes are compared with.
        gates: thresholds on that.
        stale: another quantization of the tensors.
    """

    artifacts: Artifacts
    references: References
    gates: Sequence[Gate]
    stale: Stale


def faults_of(artifacts: Artifacts, plan: MatrixPlan) -> tuple[Fault, ...]:
    """Those that a plan asks for; the same for the same plan."""

    def every() -> Iterable[Fault]:
        for file in artifacts.files:
            yield from array_faults(KINDS, file, artifacts.draft(file))
            yield from artifacts.faults(file)

    return sampled(every(), per_kind=plan.per_kind, limit=plan.limit, seed=plan.seed)


def run_matrix(bench: Bench, plan: MatrixPlan, progress: Progress) -> Matrix:
    """Damage a folder of quantized artifacts fault by fault.

    Raises:
        IntactArtifactsFailError: a judge fails before anything was damaged.
        UserError: a part is missing or damaged.
    """
    executor = check_intact(bench)
    faults = faults_of(bench.artifacts, plan)
    steps = Steps(progress, len(faults))
    outcomes = []
    for fault in faults:
        steps.begin(fault.name)
        outcomes.append(try_one(bench, fault, seed=plan.seed))
    steps.end()
    return Matrix(target=bench.artifacts.target, executor=executor, outcomes=tuple(outcomes))


def check_intact(bench: Bench) -> str:
    """The negative control: without a fault every judge is content. Returns the executor.

    Raises:
        IntactArtifactsFailError: one is not.
    """
    artifacts = bench.artifacts
    executor = ""
    for file in artifacts.files:
        labels = ("", *artifacts.draft(file).tensors)
        components = {name for label in labels for name in artifacts.components(file, label)}
        caught, measured = _judged(bench, artifacts.folder, file, sorted(components))
        executor = next((m.executor for m in measured if m.executor), executor)
        for name, message in caught.items():
            raise IntactArtifactsFailError(
                f"{artifacts.folder / file}: {name}: {message}, before anything was damaged",
                hint="give the checkpoint, quantized tensors and goldens they were made from",
            )
    return executor


def try_one(bench: Bench, fault: Fault, *, seed: int) -> Outcome:
    """Damages a copy of the one file, beside links to the others, and asks every judge."""
    artifacts = bench.artifacts
    with tempfile.TemporaryDirectory(prefix="corruptions-") as scratch:
        damaged = Path(scratch)
        for path in artifacts.folder.iterdir():
            if path.name != fault.file:
                (damaged / path.name).symlink_to(path.resolve())
        draft = artifacts.draft(fault.file)
        context = Context(
            random=Random(f"{seed} {fault.name}"),
            others=others(draft, fault.where),
            stale=bench.stale,
        )
        what = fault.change(draft, context)
        draft.write(damaged / fault.file)
        try:
            components = artifacts.components(fault.file, fault.where)
            caught, _ = _judged(bench, damaged, fault.file, components)
            equivalent = not caught and fault.of_weights and _same(artifacts, damaged, fault.file)
        except (*_CRASHES, ValueError) as error:
            crash = f"{type(error).__name__}: {error}"
            return Outcome(fault=fault, what=what, caught={}, crash=crash)
    return Outcome(fault=fault, what=what, caught=caught, equivalent=equivalent)


def _judged(
    bench: Bench, folder: Path, file: str, components: Sequence[str]
) -> tuple[dict[JudgeName, str], tuple[Measurement, ...]]:
    """What each judge that finds fault says, and what was measured."""
    caught: dict[JudgeName, str] = {}
    artifacts = bench.artifacts
    try:
        artifacts.check(folder, file)
    except UserError as error:
        caught["identity"] = error.message
    except ExportError as error:
        caught["identity"] = str(error)
    try:
        measured = tuple(artifacts.measure(folder, components, bench.references))
    except UserError as error:
        caught["conversion"] = caught["reference"] = f"refused: {error.message}"
        return caught, ()
    suffix = CONVERSION_SUFFIXES[artifacts.target]
    asked = {each + end for each in components for end in ("", suffix)}
    own = [gate for gate in bench.gates if gate.component in asked]
    for row in judge(measured, own):
        name: JudgeName = (
            "conversion" if is_conversion(artifacts.target, row.component) else "reference"
        )
        if row.status != "passed":
            caught.setdefault(name, _told(row))
    return caught, measured


def _told(row: GateRow) -> str:
    if row.value is None or row.metric == "structure":
        return f"{row.component} {row.metric}: {row.reason}"
    sign = ">" if row.bound == "max" else "<"
    return f"{row.component} {row.metric} {row.value:.3g} {sign} {row.threshold:g}"


def _same(artifacts: Artifacts, damaged: Path, file: str) -> bool:
    """Whether a damaged file's tensors decode to the same numbers, bit for bit."""
    before = artifacts.decoded(artifacts.folder, file)
    after = artifacts.decoded(damaged, file)
    return before.keys() == after.keys() and all(
        _same_numbers(before[label], after[label]) for label in before
    )


def _same_numbers(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and np.array_equal(one.view(np.uint32), other.view(np.uint32))
