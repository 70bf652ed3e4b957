"""Everything that a folder holds: both precisions, and compressed packages made for the purpose."""

import tempfile
from dataclasses import replace
from pathlib import Path

from reference.config import load_config
from reference.errors import UserError
from validation.goldens import Goldens
from validation.kill_matrix.compressed import compress, compressed_faults
from validation.kill_matrix.judge import Epsilons, Judge, Outcome, compressed_gates
from validation.kill_matrix.matrix import (
    Matrix,
    MatrixPlan,
    check_intact,
    chosen,
    run_matrix,
    try_one,
)
from validation.progress import Progress
from validation.runtimes.core_ml_paths import LANGUAGE, PROJECTOR

LAYER_NORM_EPS = 1e-5
"""Of the vision tower: PyTorch's default, as the reference has it."""

PRECISIONS = ("float32", "float16")


class NothingToDamageError(UserError):
    """A folder holds no whole set of packages."""


def folders(folder: Path) -> tuple[Path, ...]:
    """The sets of packages: the folder itself, and `float32/` and `float16/` in it.

    Raises:
        NothingToDamageError: there is none.
    """
    places = (folder, *(folder / name for name in PRECISIONS))
    if found := tuple(place for place in places if (place / LANGUAGE).exists()):
        return found
    raise NothingToDamageError(
        f"{folder}: no packages with {LANGUAGE}, neither here nor in {' or '.join(PRECISIONS)}",
        hint="give a bundle's `coreml` folder, or one with float32/ and float16/ in it",
    )


def run_all(
    folder: Path,
    goldens: Goldens,
    plan: MatrixPlan,
    progress: Progress,
    *,
    epsilons: Epsilons | None = None,
) -> tuple[Matrix, ...]:
    """A matrix for each set of packages; that of float32 has the compressed faults too.

    Args, Raises: see `matrix.run_matrix`; `find_epsilons` finds the epsilons.
    """
    matrices = []
    for each in folders(folder):
        matrix = run_matrix(each, goldens, plan, progress, epsilons=epsilons)
        if matrix.precision == "float32":
            more = run_compressed(each / PROJECTOR, goldens, plan)
            matrix = replace(matrix, outcomes=(*matrix.outcomes, *more))
        matrices.append(matrix)
    return tuple(matrices)


def find_epsilons(*places: Path) -> Epsilons | None:
    """From the first `config.json` in some folders; None if there is none."""
    for place in places:
        if (place / "config.json").exists():
            return Epsilons(vision=LAYER_NORM_EPS, decoder=load_config(place).text.rms_norm_eps)
    return None


def run_compressed(projector: Path, goldens: Goldens, plan: MatrixPlan) -> tuple[Outcome, ...]:
    """Faults of compressed packages, which coremltools makes of the float32 projector."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as scratch:
        for made in compress(projector, goldens, Path(scratch)):
            judge = Judge(
                bench=made.bench,
                precision="float32",
                gates=compressed_gates(),
                intact=made.folder,
            )
            check_intact(judge, (made.file,))
            faults = compressed_faults(made.folder / made.file)
            outcomes += [try_one(judge, mutation) for mutation in chosen(faults, plan)]
    return tuple(outcomes)
