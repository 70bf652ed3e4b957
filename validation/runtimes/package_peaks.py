"""How far the values inside packages reach over many runs: the largest magnitude of each op.

float16 ends at 65504. What overflows it turns into infinities that a later op may hide (x / inf is
0), so it is looked for where it arises. Only an executor of ours shows the values inside.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from validation.runtimes.ml_program.watch import FP16_MAX, Watch

MASKED = -3e4
"""What the decoder's packages add to a score that must not count; on purpose that large."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """One op over all runs.

    Attributes:
        kind: op type.
        name: of its first result, which is how the package calls the op.
        max_abs: largest finite magnitude.
        num_non_finite: infinite or NaN elements, all runs together.
    """

    kind: str
    name: str
    max_abs: float
    num_non_finite: int

    @property
    def fp16_share(self) -> float:
        """1 is the largest float16 number."""
        return self.max_abs / FP16_MAX

    @property
    def near_overflow(self) -> bool:
        """Beyond half of float16's range."""
        return self.fp16_share > 0.5

    def __str__(self) -> str:
        return f"{self.kind} {self.name} at {self.max_abs:.4g}"


class PeakWatch(Watch):
    """A watch that keeps one peak per op instead of a record per run."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, Peak] = {}
        self.active = True

    def note(self, kind: str, output: str, seconds: float, results: tuple[Tensor, ...]) -> None:
        """Takes one op in."""
        del seconds
        if not self.active:
            return
        before = self.peaks.get(output)
        max_abs, num_non_finite = (before.max_abs, before.num_non_finite) if before else (0.0, 0)
        for result in results:
            if result.is_floating_point() and result.numel():
                largest, num_bad = _reach(result)
                max_abs, num_non_finite = max(max_abs, largest), num_non_finite + num_bad
        self.peaks[output] = Peak(
            kind=kind, name=output, max_abs=max_abs, num_non_finite=num_non_finite
        )

    def seen(self) -> bytes:
        """The peaks, as JSON."""
        return json.dumps([asdict(peak) for peak in self.peaks.values()]).encode()

    def recall(self, seen: bytes) -> None:
        """Peaks that another watch had `seen`, in place of these."""
        self.peaks = {peak["name"]: Peak(**peak) for peak in json.loads(seen)}


class PackagePeaks:
    """One `PeakWatch` per package, by the package's name."""

    def __init__(self) -> None:
        self._watches: dict[str, PeakWatch] = {}

    def watch_of(self, package: Path) -> PeakWatch:
        """The watch of a package that is being opened."""
        return self._watches.setdefault(package.name, PeakWatch())

    def stop(self) -> None:
        """Nothing is looked at from here on."""
        for watch in self._watches.values():
            watch.active = False

    def of(self, part: str) -> Iterator[tuple[str, Peak]]:
        """(package, peak) of all packages whose names begin with `part`."""
        for package, watch in sorted(self._watches.items()):
            if package.startswith(part):
                yield from ((package, peak) for peak in watch.peaks.values())


def _reach(result: Tensor) -> tuple[float, int]:
    """Largest finite magnitude and number of non-finite elements; masks left out."""
    low, high = (float(bound) for bound in torch.aminmax(result))
    if low == MASKED:
        return _reach(result.masked_fill(result == MASKED, 0.0))
    if low - low == 0.0 and high - high == 0.0:  # both finite, hence all between
        return max(-low, high), 0
    finite = torch.isfinite(result)
    magnitudes = torch.where(finite, result.abs(), 0.0)
    return float(magnitudes.max()), result.numel() - int(finite.sum())
