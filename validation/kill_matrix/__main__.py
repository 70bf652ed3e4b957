"""`python -m validation.kill_matrix FOLDER --goldens DIR`: as `fastvlm-compile coreml corruptions`.

Ends with 1 if there is a hole, with 2 if the files cannot be used.
"""

import argparse
import sys
from pathlib import Path

from reference.errors import UserError
from validation.golden_file import open_goldens
from validation.kill_matrix.matrix import MatrixPlan
from validation.kill_matrix.table import render
from validation.kill_matrix.whole import find_epsilons, run_all


def main() -> int:
    """Runs the matrix; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m validation.kill_matrix", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--goldens", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0)
    given = parser.parse_args()
    try:
        matrices = run_all(
            given.folder,
            open_goldens(given.goldens),
            MatrixPlan(limit=given.limit),
            _silent,
            epsilons=find_epsilons(given.folder, *given.folder.resolve().parents[:2]),
        )
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_code
    for matrix in matrices:
        sys.stdout.writelines(f"{line}\n" for line in render(matrix))
    return 1 if any(matrix.holes for matrix in matrices if matrix.precision == "float32") else 0


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what


if __name__ == "__main__":
    sys.exit(main())
