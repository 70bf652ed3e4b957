"""What a parity stage measured: one number per component and metric, and who computed it.

Free of numpy, so that recipes can be checked against `METRICS` without loading it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How to read one metric.

    Attributes:
        better: which direction is good; a gate on a metric whose `better` is "lower" is a `max`.
        pooled: averaged over all positions of all cases (weighted by their number) instead of
            taking the worst case.
        meaning: one line for reports.
    """

    better: Literal["lower", "higher"]
    pooled: bool = False
    meaning: str


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "structure": Metric(
            better="higher", meaning="1 when names, shapes, dtypes and finiteness are as promised"
        ),
        "relative_l2": Metric(better="lower", meaning="|candidate - reference| / |reference|"),
        "max_abs": Metric(better="lower", meaning="largest absolute difference"),
        "cosine": Metric(better="higher", meaning="cosine of the flattened tensors"),
        "psnr_db": Metric(
            better="higher", meaning="20 log10(max|reference| / root mean square error), dB"
        ),
        "smallest_atol": Metric(
            better="lower", meaning="smallest atol that would have passed allclose"
        ),
        "smallest_rtol": Metric(
            better="lower", meaning="smallest rtol that would have passed allclose"
        ),
        "kl_mean": Metric(
            better="lower", pooled=True, meaning="mean KL(reference || candidate), nats"
        ),
        "kl_max": Metric(better="lower", meaning="largest KL(reference || candidate), nats"),
        "top1_agreement": Metric(
            better="higher", pooled=True, meaning="share of positions with the same top token"
        ),
        "top5_agreement": Metric(
            better="higher", pooled=True, meaning="mean share of the five top tokens in common"
        ),
        "greedy_agreement": Metric(
            better="higher", pooled=True, meaning="share of generations equal token for token"
        ),
        "first_difference": Metric(
            better="higher", meaning="index of the first differing token, -1 when there is none"
        ),
        "task_accuracy": Metric(
            better="higher", pooled=True, meaning="share of scene questions answered exactly right"
        ),
        "task_greedy_agreement": Metric(
            better="higher",
            pooled=True,
            meaning="share of scene questions answered with the reference's tokens, one for one",
        ),
        "fp16_peak": Metric(
            better="lower",
            meaning="largest magnitude of any value inside, as a share of float16's largest",
        ),
        "task_accuracy_drop": Metric(
            better="lower", meaning="accuracy of the reference minus accuracy of the candidate"
        ),
        "size_bytes": Metric(better="lower", meaning="bytes of all files of a variant"),
        "bits_per_weight": Metric(
            better="lower", meaning="bits of these files per weight of the model in them"
        ),
    }
)


def badness(metric: str, value: float) -> float:
    """Orders values of one metric from best to worst; NaN is the worst of all.

    Args:
        metric: a name in `METRICS`.
        value: a value of that metric.
    """
    if math.isnan(value):
        return math.inf
    if metric == "first_difference" and value < 0:  # -1 says that there is none
        return -math.inf
    return value if METRICS[metric].better == "lower" else -value


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of one component of one variant.

    Attributes:
        target: "onnx", "coreml", ...
        variant: "fp32", "float16", ...
        component: "vision_encoder", "embed_tokens", "decoder", "end_to_end", "vision".
        metric: a name in `METRICS`.
        value: the number; None exactly when `not_run_reason` is set.
        executor: the program that produced the candidate's numbers, with its version.
        executed_by_core_ml: true only for numbers that Apple's Core ML returned.
        worst: id of the golden case that came out worst.
        num_cases: how many comparisons stand behind the value.
        detail: what a structural check found, or the tolerance another one was given.
        not_run_reason: why nothing was measured.
    """

    target: str
    variant: str
    component: str
    metric: str
    value: float | None
    executor: str = ""
    executed_by_core_ml: bool = False
    worst: str = ""
    num_cases: int = 1
    detail: str = ""
    not_run_reason: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if (self.value is None) != bool(self.not_run_reason):
            raise ValueError(
                f"{self.component} {self.metric}: a measurement has a value or a reason why not"
            )
