"""The gates of a build over one damaged folder, and the first that notices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference.errors import UserError
from validation.gates import Gate, GateRow, judge
from validation.kill_matrix.bench import Bench, Pair
from validation.kill_matrix.equivalent import REASONS, TOLERANCE, largest_change
from validation.kill_matrix.mutation import Mutation
from validation.measurement import METRICS
from validation.metrics import structural_problems, tensor_metrics
from validation.norm_epsilons import norm_epsilon_problems
from validation.runtimes.core_ml_paths import VISION
from validation.tally import Tally

Precision = Literal["float32", "float16"]
Status = Literal["killed", "refused", "equivalent", "survived", "crashed"]

COMPRESSED = "compressed projector"

_CRASHES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a bug raises. A damaged file must be refused with a message, so it is told as a hole."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one fault.

    Attributes:
        status: killed by a gate, refused by the executor, shown equivalent; survived or crashed
            are holes.
        gate: `vision relative_l2`; "refused" and the like where no gate was reached.
        value, threshold: of that gate.
        detail: the case, the executor's words, the reason, or the change on random inputs.
    """

    mutation: Mutation
    status: Status
    gate: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""

    @property
    def is_hole(self) -> bool:
        """Whether nothing noticed and nothing excuses it."""
        return self.status in ("survived", "crashed")


_WHY = "as in recipes/tiny.yaml"
_LIMITS: dict[Precision, tuple[tuple[str, str, float], ...]] = {
    "float32": (
        ("vision", "relative_l2", 1e-5),
        ("vision", "psnr_db", 90.0),
        ("projector", "relative_l2", 1e-5),
        ("embedding", "max_abs", 0.0),
        ("decoder", "relative_l2", 1e-5),
        ("end_to_end", "greedy_agreement", 1.0),
    ),
    "float16": (
        ("vision", "relative_l2", 2e-2),
        ("vision", "psnr_db", 40.0),
        ("projector", "relative_l2", 2e-3),
        ("embedding", "relative_l2", 5e-4),
        ("decoder", "relative_l2", 2e-2),
        ("end_to_end", "greedy_agreement", 1.0),
    ),
}
"""(component, metric, limit) by precision. The recipe asks half's 2e-3 of the projector against its
float32 sibling; here it is asked against the reference, from which the sibling is 1e-7 away."""


def gates(precision: Precision) -> tuple[Gate, ...]:
    """The recipe's gates that a single fault is judged by."""
    return tuple(
        _gate(precision, component, metric, limit)
        for component, metric, limit in _LIMITS[precision]
    )


def compressed_gates() -> tuple[Gate, ...]:
    """For float32 packages of compressed weights against their weights written out."""
    return (_gate("float32", COMPRESSED, "relative_l2", 1e-5),)


def _gate(precision: Precision, component: str, metric: str, limit: float) -> Gate:
    lower = METRICS[metric].better == "lower"
    return Gate(
        target="coreml",
        variant=precision,
        component=component,
        metric=metric,
        max=limit if lower else None,
        min=None if lower else limit,
        why=_WHY,
    )


@dataclass(frozen=True, kw_only=True)
class Epsilons:
    """What the model adds to the variances in its norms."""

    vision: float
    decoder: float

    def of(self, file: str) -> float:
        """The one of a package."""
        return self.vision if file == VISION else self.decoder


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Runs a damaged folder and tells what notices.

    Attributes:
        bench: where it runs.
        precision: the variant that gates are about.
        gates: thresholds.
        intact: the folder without faults.
        epsilons: of the model's norms; None leaves them unchecked.
    """

    bench: Bench
    precision: Precision
    gates: Sequence[Gate]
    intact: Path
    epsilons: Epsilons | None = None

    def outcome(self, mutation: Mutation, damaged: Path) -> Outcome:
        """Judges one fault; stops at the first gate that notices."""
        try:
            if row := self.first_failure(damaged, mutation.file):
                return Outcome(
                    mutation=mutation,
                    status="killed",
                    gate=f"{row.component} {row.metric}",
                    value=row.value,
                    threshold=row.threshold,
                    detail=row.worst or row.reason,
                )
            change = largest_change(self.bench, self.intact, damaged, mutation.file)
        except UserError as error:
            return Outcome(
                mutation=mutation, status="refused", gate="refused", detail=error.message
            )
        except _CRASHES as error:
            detail = f"{type(error).__name__}: {error}"
            return Outcome(mutation=mutation, status="crashed", gate="crashed", detail=detail)
        reason = REASONS.get(mutation.kind)
        if reason is not None and change <= TOLERANCE:
            detail = f"changes {change:.1e} on random inputs: {reason}"
            return Outcome(mutation=mutation, status="equivalent", gate="equivalent", detail=detail)
        detail = f"changes {change:.1e} on random inputs"
        return Outcome(mutation=mutation, status="survived", gate="survived", detail=detail)

    def first_failure(self, folder: Path, file: str) -> GateRow | None:
        """The first gate that fails: the numbers, what is read, the answers; or None.

        Raises:
            UserError: the executor refuses the files.
        """
        for pair in self.bench.pairs(folder, file):
            if failed := self._failed(_tensor_tally(self._tally(pair.component), pair)):
                return failed
        if failed := self._failed(self._epsilons(folder, file)):
            return failed
        for case, agrees in self.bench.answers(folder):
            tally = self._tally("end_to_end")
            tally.add("greedy_agreement", float(agrees), case=case)
            if failed := self._failed(tally):
                return failed
        return None

    def _epsilons(self, folder: Path, file: str) -> Tally:
        tally = self._tally("epsilons")
        if self.epsilons is not None and file.endswith(".mlpackage"):
            problems = norm_epsilon_problems(folder / file, self.epsilons.of(file))
            tally.structure(problems, case=file)
        return tally

    def _tally(self, component: str) -> Tally:
        return Tally(
            target="coreml",
            variant=self.precision,
            component=component,
            executor="ML Program executor",
        )

    def _failed(self, tally: Tally) -> GateRow | None:
        own = [gate for gate in self.gates if gate.component == tally.component]
        return next(_failures(judge(tally.measurements(), own)), None)


def _failures(rows: Sequence[GateRow]) -> Iterator[GateRow]:
    return (row for row in rows if row.status != "passed")


def _tensor_tally(tally: Tally, pair: Pair) -> Tally:
    """The measurements of one comparison."""
    found = pair.found.astype(pair.expected.dtype, copy=False)
    if tally.structure(
        structural_problems({"output": pair.expected}, {"output": found}), case=pair.case
    ):
        for metric, value in tensor_metrics(pair.expected, found).items():
            tally.add(metric, value, case=pair.case)
    return tally
