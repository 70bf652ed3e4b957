"""What `benchmarks.latency` measured, and how it stands to the targets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.contestant import DECODE, FIRST_TOKEN, PREFILL, VISION
from benchmarks.latency_contests import (
    FLOAT_VISION,
    GENAI_NAME,
    INT8_VISION,
    LLAMA_NAME,
    OUR_INT4,
    PLAIN_BUNDLE,
    PLAIN_VISION,
    TORCH_VISION,
    Memory,
    ours,
)
from benchmarks.referee import Timed
from validation.latency.samples import Roofline
from validation.latency.significance import Interval, ratio_interval
from validation.logit_metrics import LogitMetrics

MEMORY_TARGET = 0.6
PSNR_TARGET_DB = 35.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """How many times as fast one contestant shall be as another."""

    title: str
    phase: str
    ours: str
    against: str
    least: float


TARGETS = (
    *(
        Target(title=title, phase=phase, ours=ours(variant), against=against, least=least)
        for title, phase, over_genai in (
            ("int4 decode", DECODE, 1.5),
            ("int4 prefill", PREFILL, 2.0),
        )
        for variant in OUR_INT4
        for against, least in ((GENAI_NAME, over_genai), (LLAMA_NAME, 1.0))
    ),
    *(
        Target(title=title, phase=VISION, ours=name, against=against, least=least)
        for title, name, against, least in (
            ("vision fp32", FLOAT_VISION, PLAIN_VISION, 1.15),
            ("vision fp32", FLOAT_VISION, TORCH_VISION, 1.75),
            ("vision int8", INT8_VISION, FLOAT_VISION, 1.6),
        )
    ),
    *(
        Target(
            title="time to first token",
            phase=FIRST_TOKEN,
            ours=ours(variant),
            against=PLAIN_BUNDLE,
            least=2.0,
        )
        for variant in OUR_INT4
    ),
)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What the weights of a model lose in each form.

    Attributes:
        weights: which they are.
        kl: to the float32 reference, nats, by decoder.
        psnr_db: of the vision features, by graph.
    """

    weights: str
    kl: Mapping[str, LogitMetrics]
    psnr_db: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured, and where.

    Attributes:
        bundles: digests of the manifests, by name.
        threads, num_rounds, num_tokens, num_steps: see `Setting`.
        contests: all contestants of a phase met in one contest.
        memory: of whole processes.
        quality: of the weights measured and of trained ones.
        decoder_bytes: weights that a step reads, by decoder of ours.
        file_bytes: of the peers' files.
        profiles: milliseconds by graph, phase and kind of node.
        roofline: of the machine, the better of two measurements.
        machine, peers: names and versions.
        load_before, others_during: what else the machine did.
    """

    bundles: Mapping[str, str]
    threads: int
    num_rounds: int
    num_tokens: int
    num_steps: int
    contests: tuple[tuple[Timed, ...], ...]
    memory: tuple[Memory, ...]
    quality: tuple[Quality, ...]
    decoder_bytes: Mapping[str, int]
    file_bytes: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, Mapping[str, float]]]
    roofline: Roofline
    machine: Mapping[str, str]
    peers: Mapping[str, str]
    load_before: float
    others_during: float

    def blocks(self, name: str, phase: str) -> tuple[tuple[float, ...], ...]:
        """A contestant's seconds in a phase, by turn.

        Raises:
            ValueError: it took part in none with that phase.
        """
        (found,) = (
            timed.phases[phase]
            for contest in self.contests
            for timed in contest
            if timed.name == name and phase in timed.phases
        )
        return found


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A target and what was found: the ratio of medians and its interval, both other over ours."""

    target: Target
    speedup: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """A ratio that is no number misses."""
        if self.speedup >= self.target.least:
            return "met" if self.interval.low >= self.target.least else "met, within the spread"
        return "missed"


def judge(report: Report, target: Target) -> Judged:
    """The ratio of a target."""
    mine, theirs = (report.blocks(name, target.phase) for name in (target.ours, target.against))
    return Judged(
        target=target,
        speedup=typical(theirs) / typical(mine),
        interval=ratio_interval(mine, theirs),
    )


def typical(blocks: Sequence[Sequence[float]]) -> float:
    """The median of all samples."""
    return median(sample for block in blocks for sample in block)


def as_json(report: Report) -> str:
    """All samples, and the targets with what was found."""
    content = asdict(report)
    content["targets"] = [
        {**asdict(judged), "verdict": judged.verdict}
        for judged in (judge(report, target) for target in TARGETS)
    ]
    return json.dumps(_rounded(content), indent=1, allow_nan=False)


def _rounded(value: object) -> object:
    """Floats to nine digits: a clock tells no more."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
