"""Work that need not be done twice: what a computation that was killed has made already.

A computation says what its pieces are; who calls it decides whether they are kept. Every piece is a
pure function of what the whole is made of, so one that is found is as good as one that is made.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

Arrays = Mapping[str, "npt.NDArray[Any]"]


class Kept(Protocol):
    """The pieces of one computation by their names, which are unique in it."""

    def arrays(self, name: str, compute: Callable[["Kept"], Arrays]) -> Arrays:
        """What `compute` returns, now or when it was called before.

        Arrays have a dimension at least, lie in one block and are aligned as PyTorch's tensors are.

        Args:
            name: of the piece.
            compute: takes what keeps the piece's own pieces, which are dropped when it is whole.
        """
        ...

    def part(self, name: str) -> "Kept":
        """What keeps the pieces of a part of the work, whose names are its own."""
        ...

    def files(self, name: str, make: Callable[[Path], str], out: Path) -> str:
        """Have in `out` what `make` puts into the empty folder that it is given.

        Args:
            name: of the piece.
            make: writes files, and returns what is to be known of them beside.
            out: takes the files under the same names; they must not be changed there.

        Returns:
            What `make` returned, now or when it was called before.
        """
        ...

    def workplace(self, out: Path) -> Path:
        """A folder for who keeps account of what is done by itself; `out` if nothing is kept."""
        ...

    def last_state(self, name: str) -> tuple[int, Arrays] | None:
        """The number and the arrays of the latest `keep_state` of this name."""
        ...

    def keep_state(self, name: str, number: int, arrays: Arrays) -> None:
        """Keep a state in place of the one before; numbers grow."""
        ...


class NothingKept:
    """The `Kept` of a computation that starts from the beginning each time."""

    def arrays(self, name: str, compute: Callable[["Kept"], Arrays]) -> Arrays:
        """What `compute` returns."""
        del name
        return compute(self)

    def part(self, name: str) -> "Kept":
        """The same."""
        del name
        return self

    def files(self, name: str, make: Callable[[Path], str], out: Path) -> str:
        """Files appear in `out` when `make` has ended."""
        del name
        with tempfile.TemporaryDirectory(dir=out) as folder:
            told = make(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                shutil.move(path, out / path.name)
        return told

    def workplace(self, out: Path) -> Path:
        """`out` itself."""
        return out

    def last_state(self, name: str) -> tuple[int, Arrays] | None:
        """There is none."""
        del name
        return None

    def keep_state(self, name: str, number: int, arrays: Arrays) -> None:
        """Forgets it."""
        del name, number, arrays


NOTHING_KEPT = NothingKept()
