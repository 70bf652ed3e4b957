"""Builds one recipe in a process of its own, watched; keeps what it says.

A folder for each recipe: `store`, `bundle`, `build.log`, and `goes.json`, which tells of every go
that was needed. So a build that was killed goes on, and one of which a go was lost is not taken for
one that was watched from start to end.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.scale_figures import Took
from fastvlm_compile.console import format_duration
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.memory_meter import MemoryMeter
from fastvlm_compile.structure import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class Go:
    """One process of `fastvlm-compile build`; without an end when it was killed with us."""

    took: Took | None = None


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a recipe is built.

    Attributes:
        folder: of this recipe alone.
        store: the root of its store.
    """

    folder: Path
    store: Path

    @property
    def bundle(self) -> Path:
        """Its bundle."""
        return self.folder / "bundle"

    @property
    def log(self) -> Path:
        """All that its builds said, as it is."""
        return self.folder / "build.log"

    @property
    def figures(self) -> Path:
        """The figures, once it is built."""
        return self.folder / "figures.json"

    def goes(self) -> tuple[Go, ...]:
        """Every go so far."""
        path = self.folder / "goes.json"
        if not path.is_file():
            return ()
        found = json.loads(path.read_bytes())
        return tuple(Go(took=None if go["took"] is None else Took(**go["took"])) for go in found)

    def save_goes(self, goes: tuple[Go, ...]) -> None:
        """Replace them."""
        aside = self.folder / ".goes.json"
        aside.write_text(json.dumps([asdict(go) for go in goes]), encoding="utf-8")
        aside.rename(self.folder / "goes.json")

    def save_estimates(self, estimates: Mapping[str, Estimate]) -> None:
        """Keep those from before the first go."""
        path = self.folder / "estimates.json"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(to_plain(dict(estimates))), encoding="utf-8")

    def estimates(self) -> dict[str, Estimate]:
        """By stage."""
        found = json.loads((self.folder / "estimates.json").read_bytes())
        return {stage: from_plain(each, Estimate) for stage, each in found.items()}

    def whole(self) -> Took | None:
        """All goes together; None where one was lost, or none was metered."""
        if not MemoryMeter.works_here():
            return None
        return Took.together(go.took for go in self.goes())


def build(recipe: Path, place: Workplace, *, even_if_too_large: bool) -> int:
    """Build a recipe, or go on with it; everything it says goes to stderr and to the log.

    Args:
        recipe: its file.
        place: where to.
        even_if_too_large: whether to build what is estimated to need more memory than there is.

    Returns:
        Its exit code.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    goes = (*place.goes(), Go())
    place.save_goes(goes)
    command = [sys.executable, "-m", "fastvlm_compile", "build", str(recipe), "--quiet"]
    command += ["--store", str(place.store), "--out", str(place.bundle)]
    command += ["--even-if-too-large"] if even_if_too_large else []
    started_s = time.monotonic()
    with place.log.open("a", encoding="utf-8") as log:
        if len(goes) > 1:
            log.write("the build was stopped here, and goes on\n")
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        with MemoryMeter(child.pid) as meter, _ended_with_us(child):
            assert child.stdout is not None
            for line in child.stdout:
                sys.stderr.write(line)
                log.write(f"{format_duration(time.monotonic() - started_s):>9}  {line}")
                log.flush()
            child.wait()
    took = Took(wall_s=time.monotonic() - started_s, peak_bytes=meter.peak.allocated)
    place.save_goes((*goes[:-1], replace(goes[-1], took=took)))
    return child.returncode


@contextlib.contextmanager
def _ended_with_us(child: subprocess.Popen[str]) -> Iterator[None]:
    """Interrupts the child when the block is left by an error."""
    try:
        yield
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise


def without_paths(text: str, names: Mapping[Path, str]) -> str:
    """A log in which folders of this machine have other names.

    Args:
        text: of the log.
        names: what stands for each folder.
    """
    forms = ((form, name) for path, name in names.items() for form in {path, path.resolve()})
    spelled = {str(form): name for form, name in forms if len(form.parts) > 1}  # not `/`
    for path in sorted(spelled, key=len, reverse=True):
        text = text.replace(path, spelled[path])
    return text
