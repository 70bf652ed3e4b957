"""What a run did, op by op: time, non-finite values, values near the end of fp16's range."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

FP16_MAX = 65504.0


@dataclass(frozen=True, kw_only=True)
class OpRecord:
    """One executed op.

    Attributes:
        kind: op type.
        output: name of its (first) result, which is how the package calls the op.
        seconds: time in its kernel.
        max_abs: largest finite magnitude of its floating-point results.
        num_non_finite: infinite or NaN elements of them.
        near_overflow: whether `max_abs` exceeds the watch's limit.
    """

    kind: str
    output: str
    seconds: float
    max_abs: float
    num_non_finite: int
    near_overflow: bool


@dataclass(kw_only=True)
class Watch:
    """Collects a record per executed op. Give it to `run`; it may serve several runs.

    Masks hold -inf or large negative values on purpose; `ignore` names such results.

    Attributes:
        limit: magnitudes above it count as near overflow; by default half of fp16's range.
        ignore: results that are not looked at.
    """

    limit: float = 0.5 * FP16_MAX
    ignore: frozenset[str] = frozenset()
    records: list[OpRecord] = field(default_factory=list)

    def note(self, kind: str, output: str, seconds: float, results: tuple[Tensor, ...]) -> None:
        """Record one op."""
        max_abs, num_non_finite = 0.0, 0
        for result in results:
            if not result.is_floating_point() or not result.numel() or output in self.ignore:
                continue
            low, high = (float(bound) for bound in torch.aminmax(result))
            if low - low == 0.0 and high - high == 0.0:  # both finite, hence all between
                max_abs = max(max_abs, -low, high)
                continue
            finite = torch.isfinite(result)
            num_non_finite += result.numel() - int(finite.sum())
            magnitudes = torch.where(finite, result.abs(), 0.0)
            max_abs = max(max_abs, float(magnitudes.max()))
        self.records.append(
            OpRecord(
                kind=kind,
                output=output,
                seconds=seconds,
                max_abs=max_abs,
                num_non_finite=num_non_finite,
                near_overflow=max_abs > self.limit,
            )
        )

    @property
    def non_finite(self) -> tuple[OpRecord, ...]:
        """Ops with infinite or NaN results, in order."""
        return tuple(record for record in self.records if record.num_non_finite)

    @property
    def near_overflow(self) -> tuple[OpRecord, ...]:
        """Ops with results near the end of fp16's range, in order."""
        return tuple(record for record in self.records if record.near_overflow)

    def seconds_by_kind(self) -> dict[str, float]:
        """Total time per op type, longest first."""
        totals: dict[str, float] = {}
        for record in self.records:
            totals[record.kind] = totals.get(record.kind, 0.0) + record.seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))
