"""All faults of a folder of packages, judged one by one."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reference.errors import UserError
from validation.gates import Gate
from validation.goldens import Goldens
from validation.kill_matrix.bench import COMPONENTS, ModelBench
from validation.kill_matrix.draft import read_draft
from validation.kill_matrix.faults_files import (
    file_faults,
    language_faults,
    table_faults,
)
from validation.kill_matrix.faults_language import attention_faults, decoder_faults
from validation.kill_matrix.faults_ops import op_faults
from validation.kill_matrix.faults_weights import layer_faults, weight_faults
from validation.kill_matrix.faults_wiring import wiring_faults
from validation.kill_matrix.judge import Epsilons, Judge, Outcome, Precision, gates
from validation.kill_matrix.mutation import SPEC, WEIGHTS, Mutation, sampled
from validation.progress import Progress, Steps
from validation.runtimes.core_ml_paths import EMBEDDING, packages_in_folder
from validation.runtimes.language_layout import read_layout


class IntactPackagesFailError(UserError):
    """The packages miss a gate before anything was damaged."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class MatrixPlan:
    """How much is damaged.

    Attributes:
        per_kind: faults of each kind and file.
        limit: faults in all, taken evenly; 0 for all.
        seed: chooses them.
    """

    per_kind: int = 4
    limit: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What became of every fault of one precision's packages."""

    precision: Precision
    outcomes: tuple[Outcome, ...]

    @property
    def holes(self) -> tuple[Outcome, ...]:
        """Faults that nothing notices and nothing excuses."""
        return tuple(outcome for outcome in self.outcomes if outcome.is_hole)

    @property
    def counts(self) -> Counter[str]:
        """Faults by status."""
        return Counter(outcome.status for outcome in self.outcomes)


def mutations(folder: Path, plan: MatrixPlan) -> tuple[Mutation, ...]:
    """The faults of a folder, the same for the same plan."""
    return chosen(_faults(folder, plan), plan)


def chosen(found: Iterable[Mutation], plan: MatrixPlan) -> tuple[Mutation, ...]:
    """Those that the plan asks for."""
    kept = sampled(found, per_kind=plan.per_kind, seed=plan.seed)
    if not plan.limit or len(kept) <= plan.limit:
        return kept
    return tuple(kept[place * len(kept) // plan.limit] for place in range(plan.limit))


def run_matrix(
    folder: Path,
    goldens: Goldens,
    plan: MatrixPlan,
    progress: Progress,
    *,
    epsilons: Epsilons | None = None,
    limits: Sequence[Gate] | None = None,
) -> Matrix:
    """Damage a folder of packages fault by fault.

    Args:
        folder: a bundle's `coreml`, with all parts.
        goldens: what the reference computed; at least one prompt must fit the context.
        plan: how much.
        progress: told of every fault.
        epsilons: of the model's norms; None leaves them unchecked.
        limits: other gates than `gates`.

    Raises:
        IntactPackagesFailError: a gate fails before anything was damaged.
        UserError: a part is missing or damaged.
    """
    packages_in_folder(folder).check()
    bench = ModelBench(goldens, folder, "none")
    precision: Precision = "float32" if bench.layout.precision == "float32" else "float16"
    if precision == "float16":
        bench = ModelBench(goldens, folder, "fp16")
    judge = Judge(
        bench=bench,
        precision=precision,
        gates=gates(precision) if limits is None else limits,
        intact=folder,
        epsilons=epsilons,
    )
    check_intact(judge, (*COMPONENTS, *(chunk.package for chunk in bench.layout.chunks)))
    faults = mutations(folder, plan)
    steps = Steps(progress, len(faults))
    outcomes = []
    for mutation in faults:
        steps.begin(mutation.name)
        outcomes.append(try_one(judge, mutation))
    steps.end()
    return Matrix(precision=precision, outcomes=tuple(outcomes))


def check_intact(judge: Judge, files: Iterable[str]) -> None:
    """The negative control: without a fault every gate passes.

    Raises:
        IntactPackagesFailError: one does not.
    """
    for file in files:
        if failed := judge.first_failure(judge.intact, file):
            raise IntactPackagesFailError(
                f"{judge.intact / file}: {failed.component} {failed.metric} is {failed.value} where"
                f" {failed.threshold:g} is asked, before anything was damaged {failed.reason}",
                hint="give the goldens of the checkpoint that the packages were made from",
            )


def try_one(judge: Judge, mutation: Mutation) -> Outcome:
    """Damages a copy of the one file, beside links to the others, and judges it."""
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as scratch:
        damaged = Path(scratch)
        for path in judge.intact.iterdir():
            if path.name != mutation.file:
                (damaged / path.name).symlink_to(path.resolve())
        damage(judge.intact / mutation.file, damaged / mutation.file, mutation)
        return judge.outcome(mutation, damaged)


def damage(original: Path, copy: Path, mutation: Mutation) -> None:
    """Copies a package or file and damages the copy."""
    if original.is_dir():
        shutil.copytree(original, copy)
    else:
        shutil.copyfile(original, copy)
    if mutation.edit is not None:
        draft = read_draft(copy)
        mutation.edit(draft)
        (copy / SPEC).write_bytes(draft.model.SerializeToString())
        (copy / WEIGHTS).write_bytes(draft.weights)
    if mutation.damage is not None:
        mutation.damage(copy)


def _faults(folder: Path, plan: MatrixPlan) -> Iterator[Mutation]:
    paths = packages_in_folder(folder)
    layout = read_layout(folder)
    for package in (paths.vision, paths.projector):
        draft, file = read_draft(package), package.name
        yield from weight_faults(draft, file)
        yield from op_faults(draft, file)
        yield from wiring_faults(draft, file)
        yield from attention_faults(draft, file)
        yield from file_faults(draft, file, seed=plan.seed)
    yield from table_faults(folder / EMBEDDING, columns=layout.hidden_size)
    for chunk in layout.chunks:
        draft, file = read_draft(folder / chunk.package), chunk.package
        yield from weight_faults(draft, file)
        yield from layer_faults(draft, file)
        yield from op_faults(draft, file)
        yield from wiring_faults(draft, file)
        yield from attention_faults(draft, file)
        head_dim = chunk.cache[0].shape[-1] if chunk.cache else 1
        yield from decoder_faults(draft, file, head_dim=head_dim)
        yield from file_faults(draft, file, seed=plan.seed + 1)
    yield from language_faults(folder)
