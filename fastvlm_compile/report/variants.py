"""What was measured of each variant, side by side: its bytes and its quality."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from validation.measurement import Measurement

FILES = "files"
"""The component whose measurements are sizes."""
REFERENCE = "reference"
"""PyTorch with the quantized weights: measured like a variant, but there is nothing to ship."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value, or why there is none; neither where nothing of the kind was measured.

    Attributes:
        value: as measured.
        reason: why there is none.
        num_cases: comparisons behind the value.
    """

    value: float | None = None
    reason: str = ""
    num_cases: int = 0


@dataclass(frozen=True, kw_only=True)
class VariantQuality:
    """One variant.

    Attributes:
        target, variant: as in its measurements.
        size_bytes, bits_per_weight: of all its files; the reference has none.
        kl_decoder: mean KL over all positions of the goldens, the reference's inputs given, nats.
        kl_end_to_end: mean KL from pixels to tokens, in each answer as far as it agrees, nats.
        top1, top5: agreement of the decoder's tokens, shares.
        psnr_db: of the image features: of the tower for Core ML, after the projector elsewhere.
        greedy: share of answers that are equal token for token.
        task_accuracy, task_accuracy_drop: share of questions right, and what was lost of it.
        executors: the programs that computed all this.
        executed_by_core_ml: whether all of it came from Apple's Core ML.
    """

    target: str
    variant: str
    size_bytes: Cell
    bits_per_weight: Cell
    kl_decoder: Cell
    kl_end_to_end: Cell
    top1: Cell
    top5: Cell
    psnr_db: Cell
    greedy: Cell
    task_accuracy: Cell
    task_accuracy_drop: Cell
    executors: tuple[str, ...]
    executed_by_core_ml: bool

    @property
    def has_files(self) -> bool:
        """Whether it is something that can be shipped."""
        return self.target != REFERENCE


_Found = Mapping[tuple[str, str], Measurement]

_FEATURES = {"coreml": "vision"}
"""Where tower and projector are packages of their own, the tower's features are compared."""


def variant_rows(measurements: Sequence[Measurement]) -> tuple[VariantQuality, ...]:
    """One row a variant, in the order of the measurements; the quantized references come last."""
    found: dict[tuple[str, str], dict[tuple[str, str], Measurement]] = {}
    for each in measurements:
        of_variant = found.setdefault((each.target, each.variant), {})
        of_variant[each.component, each.metric] = each
    ordered = sorted(found, key=lambda key: key[0] == REFERENCE)  # stable
    return tuple(_row(*key, found[key]) for key in ordered)


def pareto_front(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Those of (size, loss) that no other point equals or beats in both, from small to large.

    Points that are NaN in either are on no front.
    """
    front: list[tuple[float, float]] = []
    for size, loss in sorted(p for p in points if not any(map(math.isnan, p))):
        if not front or loss < front[-1][1]:
            front.append((size, loss))
    return tuple(front)


def _row(target: str, variant: str, found: _Found) -> VariantQuality:
    features = _FEATURES.get(target, "vision_encoder")
    measured = [each for each in found.values() if each.executor and each.metric != "structure"]
    return VariantQuality(
        target=target,
        variant=variant,
        size_bytes=_cell(found, FILES, "size_bytes"),
        bits_per_weight=_cell(found, FILES, "bits_per_weight"),
        kl_decoder=_cell(found, "decoder", "kl_mean"),
        kl_end_to_end=_cell(found, "end_to_end", "kl_mean"),
        top1=_cell(found, "decoder", "top1_agreement"),
        top5=_cell(found, "decoder", "top5_agreement"),
        psnr_db=_cell(found, features, "psnr_db"),
        greedy=_cell(found, "end_to_end", "greedy_agreement"),
        task_accuracy=_cell(found, "end_to_end", "task_accuracy"),
        task_accuracy_drop=_cell(found, "end_to_end", "task_accuracy_drop"),
        executors=tuple(dict.fromkeys(each.executor for each in measured)),
        executed_by_core_ml=bool(measured) and all(each.executed_by_core_ml for each in measured),
    )


def _cell(found: _Found, component: str, metric: str) -> Cell:
    measurement = found.get((component, metric))
    if measurement is not None:
        return Cell(
            value=measurement.value,
            reason=measurement.not_run_reason,
            num_cases=measurement.num_cases,
        )
    structure = found.get((component, "structure"))
    if structure is not None and structure.value != 1.0:  # nothing else is compared then
        return Cell(reason=structure.not_run_reason or f"not comparable: {structure.detail}")
    return Cell()
