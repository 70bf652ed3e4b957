"""The page and the data of `benchmarks.int4_build`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.int4_decode import NUM_SEQUENCES, NUM_STEPS, PROMPT_LENGTH, Decoded
from benchmarks.page import listed
from benchmarks.watch import Watched

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process of a build.

    Attributes:
        name: of the step.
        cost: what was watched from outside.
        parts: seconds of what it said it was at, where it says so; imports are in none.
    """

    name: str
    cost: Watched
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Build:
    """One decoder, from a checkpoint to files.

    Attributes:
        name: whose, and how.
        steps: its processes, in order.
        file_bytes: graphs and weights, the embedding included.
        decoder_bytes: of what the decoder computes with (see `onnx_bytes`).
        decoder: the graph.
        embed: the graph of the embedding, where it is one by itself.
    """

    name: str
    steps: tuple[Step, ...]
    file_bytes: int
    decoder_bytes: int
    decoder: Path
    embed: Path | None

    @property
    def wall_s(self) -> float:
        """Of all processes."""
        return sum(step.cost.wall_s for step in self.steps)

    @property
    def cpu_s(self) -> float:
        """Of all processes."""
        return sum(step.cost.cpu_s for step in self.steps)

    @property
    def peak_anonymous_bytes(self) -> int:
        """Of the largest process."""
        return max(step.cost.peak_anonymous_bytes for step in self.steps)

    @property
    def peak_resident_bytes(self) -> int:
        """Of the largest process."""
        return max(step.cost.peak_resident_bytes for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured, and where; loads are over 1, 5 and 15 minutes."""

    checkpoint: str
    builds: tuple[Build, ...]
    decoded: tuple[Decoded, ...]
    num_weights: int
    scenes: int
    photographs: int
    threads: int
    machine: dict[str, str]
    their_versions: dict[str, str]
    load_before: tuple[float, ...]
    load_after: tuple[float, ...]


def write_report(path: Path, report: Report) -> None:
    """Write `path`.json and `path`.md, and say where."""
    for suffix, text in ((".json", as_json(report)), (".md", markdown(report))):
        target = path.with_suffix(suffix)
        target.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(target)


def as_json(report: Report) -> str:
    """The data; where the files lay while they were measured is left out."""
    content = asdict(report)
    for build in content["builds"]:
        del build["decoder"], build["embed"]
    return json.dumps(content, indent=2, allow_nan=False)


def markdown(report: Report) -> str:
    """The page."""
    lines = [
        "# int4 decoder: ours against onnxruntime-genai's builder",
        "",
        f"From the same checkpoint ({report.checkpoint}, {report.num_weights / 1e6:.0f} million "
        "weights in the decoder's matrices): 4 bits, symmetric, blocks of 32, float32 scales, "
        "MatMulNBits of accuracy level 4. Whole processes, from start to end, one after another; "
        "peak memory is that of the largest. The builder gets the language model alone as a plain "
        "Qwen2 checkpoint, the making of which is not counted.",
        "",
        *_table(
            ("build", "wall s", "CPU s", "peak allocated MiB", "peak resident MiB"),
            [
                (
                    build.name,
                    f"{build.wall_s:.1f}",
                    f"{build.cpu_s:.1f}",
                    f"{build.peak_anonymous_bytes / MIB:.0f}",
                    f"{build.peak_resident_bytes / MIB:.0f}",
                )
                for build in report.builds
            ],
        ),
        "",
        "Resident memory counts mapped files, which the system can drop.",
        "",
        *_ratios(report),
        "",
        *_files(report),
        "",
        *_steps(report),
        "",
        *_decoded(report),
        "",
        f"Machine: {listed(report.machine)}. The builder's environment: "
        f"{listed(report.their_versions)}. Load over 1, 5 and 15 minutes before the run "
        f"{_numbers(report.load_before)}, after it {_numbers(report.load_after)}: other work makes "
        "times upper bounds.",
    ]
    return "\n".join(lines)


def _ratios(report: Report) -> list[str]:
    """Every other build in units of the first."""
    first, *others = report.builds
    lines = [f"In units of `{first.name}`:", ""]
    lines += [
        f"- `{build.name}`: {build.wall_s / first.wall_s:.2f} of the time, "
        f"{build.cpu_s / first.cpu_s:.2f} of the processor time, "
        f"{build.peak_anonymous_bytes / first.peak_anonymous_bytes:.2f} of the peak memory."
        for build in others
    ]
    return lines


def _files(report: Report) -> list[str]:
    rows = [
        (
            build.name,
            f"{build.file_bytes / 1e6:.1f}",
            f"{build.decoder_bytes / 1e6:.1f}",
            f"{8 * build.decoder_bytes / report.num_weights:.3f}",
        )
        for build in report.builds
    ]
    return [
        "## Files",
        "",
        "Bits per weight count everything that the decoder computes with: codes, scales, norms, "
        "biases and rotary tables. The builder's tables hold all positions of the model, ours "
        "those of the context.",
        "",
        *_table(("build", "all files MB", "decoder MB", "bits per weight"), rows),
    ]


def _steps(report: Report) -> list[str]:
    rows = [
        (
            build.name,
            step.name,
            f"{step.cost.wall_s:.1f}",
            f"{step.cost.cpu_s:.1f}",
            f"{step.cost.peak_anonymous_bytes / MIB:.0f}",
            ", ".join(f"{name} {seconds:.1f}" for name, seconds in step.parts.items()),
        )
        for build in report.builds
        for step in build.steps
    ]
    return [
        "## Where the time goes",
        "",
        f"Calibration: {report.scenes} rendered scenes, {report.photographs} photographs and one "
        "prompt without an image; its images run through the float32 vision tower.",
        "",
        *_table(("build", "process", "wall s", "CPU s", "peak allocated MiB", "of it, s"), rows),
    ]


def _decoded(report: Report) -> list[str]:
    rows = [
        (
            row.name,
            f"{1000 * row.prefill_s:.0f}",
            f"{row.tokens_per_s:.1f}",
            f"{1000 * row.slowest_step_s:.0f}",
            f"{row.kl_mean:.3g}",
            f"{row.kl_max:.3g}",
            f"{row.top1_agreement:.1%}",
        )
        for row in report.decoded
    ]
    return [
        "## In onnxruntime",
        "",
        f"{NUM_SEQUENCES} sequences, {PROMPT_LENGTH} tokens at once and {NUM_STEPS} one by one, "
        f"the same for all, {report.threads} threads, taking turns; medians. KL(reference || "
        "decoder) in nats against PyTorch in float32, after the prompt and after each step. The "
        "builder's graph computes logits of all positions of a prompt, ours of the last.",
        "",
        "Made-up weights amplify what is rounded from layer to layer, until every int4 decoder is "
        "as far from the reference as another model: KL then ranks nothing. `int4_quality.md` has "
        "it for trained weights.",
        "",
        *_table(
            (
                "decoder",
                "prompt ms",
                "tokens/s",
                "slowest step ms",
                "KL mean",
                "KL max",
                "same top token",
            ),
            rows,
        ),
    ]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(titles) + " |",
        "|---|" + "---:|" * (len(titles) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
