"""How far values inside packages reach: the op is named, masks are not mistaken for overflow."""

import math
from pathlib import Path

import torch

from validation.coreml_run import add_peaks
from validation.runtimes.package_peaks import MASKED, PackagePeaks
from validation.tally import Tally


def noted(*values: list[float]) -> PackagePeaks:
    """Peaks of one decoder package whose op `x` gave these results, one run each."""
    peaks = PackagePeaks()
    watch = peaks.watch_of(Path("decoder.mlpackage"))
    for run in values:
        watch.note("mul", "x", 0.0, (torch.tensor(run),))
    return peaks


def measured(peaks: PackagePeaks) -> dict[str, object]:
    tally = Tally(target="coreml", variant="float16", component="decoder", executor="ours")
    add_peaks(tally, peaks, "decoder")
    return {m.metric: m for m in tally.measurements()}


def test_the_largest_of_all_runs_counts() -> None:
    ((package, peak),) = noted([1.0, -3.0], [2.0]).of("decoder")
    assert (package, peak.name, peak.max_abs) == ("decoder.mlpackage", "x", 3.0)
    assert not peak.near_overflow
    assert list(noted([1.0]).of("projector")) == []


def test_near_overflow_is_told_with_the_op() -> None:
    peak = measured(noted([40000.0]))["fp16_peak"]
    assert peak.value == 40000 / 65504
    assert peak.detail == "near overflow: decoder.mlpackage: mul x at 4e+04"
    assert peak.worst == "decoder.mlpackage: mul x"


def test_infinite_and_missing_numbers_are_a_structural_failure() -> None:
    for bad in (math.inf, -math.inf, math.nan):
        structure = measured(noted([1.0], [bad, 2.0]))["structure"]
        assert structure.value == 0.0
        assert "decoder.mlpackage: mul x: 1 values are infinite or not numbers" in structure.detail
    assert "structure" not in measured(noted([1.0]))


def test_a_mask_is_large_on_purpose_and_hides_nothing_else() -> None:
    ((_, peak),) = noted([MASKED, 0.0, 5.0]).of("decoder")
    assert peak.max_abs == 5.0
    ((_, peak),) = noted([MASKED, math.nan, 40000.0]).of("decoder")
    assert (peak.max_abs, peak.num_non_finite) == (40000.0, 1)


def test_a_watch_that_was_stopped_sees_nothing_more() -> None:
    peaks = noted([1.0])
    peaks.stop()
    peaks.watch_of(Path("decoder.mlpackage")).note("mul", "x", 0.0, (torch.tensor([9.0]),))
    ((_, peak),) = peaks.of("decoder")
    assert peak.max_abs == 1.0
