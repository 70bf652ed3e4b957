"""The page and the data of `benchmarks.int4_quality`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path

from benchmarks.page import listed
from fastvlm_compile.quantize.scheme import Affine


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantizer on one set of weights; relative errors are of squared norms.

    Attributes:
        quantizer: whose, and which.
        size_bytes: codes, float32 scales and zero points.
        weight_error: |W - Q|^2 / |W|^2, all matrices together.
        output_error: tr(E H E^T) / tr(W H W^T), the mean over matrices, H of unseen inputs.
        seconds: of quantizing.
        kl_answers: mean KL of the logits that predict answers, nats.
        kl_everywhere: mean KL at all positions, nats.
        top1_everywhere: agreement of top tokens at all positions.
        failed: what it says instead of a result; the numbers are then NaN.
    """

    quantizer: str
    size_bytes: int = 0
    weight_error: float = float("nan")
    output_error: float = float("nan")
    seconds: float = float("nan")
    kl_answers: float = float("nan")
    kl_everywhere: float = float("nan")
    top1_everywhere: float = float("nan")
    failed: str = ""


Table = dict[str, list[Row]]
"""Rows by the block size and symmetry that they share."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured, and where."""

    tiny: Table
    large: Table
    num_scenes: int
    machine: dict[str, str]
    load_15_minutes: float


_Column = tuple[str, Callable[[Row], str]]

_COMMON: tuple[_Column, ...] = (
    ("bytes", lambda row: f"{row.size_bytes:,}"),
    ("weight error", lambda row: f"{row.weight_error:.5f}"),
    ("output error", lambda row: f"{row.output_error:.6f}"),
)
_LOGITS: tuple[_Column, ...] = (
    ("KL, answers", lambda row: f"{row.kl_answers:.2e}"),
    ("KL, everywhere", lambda row: f"{row.kl_everywhere:.2e}"),
    ("top-1, everywhere", lambda row: f"{row.top1_everywhere:.2%}"),
)
_TIME: tuple[_Column, ...] = (("seconds", lambda row: f"{row.seconds:.1f}"),)


def heading(scheme: Affine) -> str:
    """What the rows of a table share."""
    return f"block {scheme.block_size} {'symmetric' if scheme.symmetric else 'asymmetric'}"


def write_report(path: Path, report: Report) -> None:
    """Write `path`.json and `path`.md, and say where."""
    for suffix, text in ((".json", as_json(report)), (".md", markdown(report))):
        target = path.with_suffix(suffix)
        target.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(target)


def as_json(report: Report) -> str:
    """The data; what was not measured is null, which JSON has and NaN is not."""
    content = asdict(report)
    for table in (content["tiny"], content["large"]):
        for rows in table.values():
            for row in rows:
                row |= {
                    name: None
                    for name, value in row.items()
                    if isinstance(value, float) and isnan(value)
                }
    return json.dumps(content, indent=2, allow_nan=False)


def markdown(report: Report) -> str:
    """The page."""
    lines = [
        "# int4: ours against onnxruntime's quantizers",
        "",
        "Bytes are those of MatMulNBits nodes with float32 scales, as onnxruntime's quantizers "
        "write them; ours are float16 values and take half of that elsewhere. HQQ's zero points "
        "are float32, so it takes more. Weight error is |W - Q|^2 / |W|^2; output error is "
        "tr(E H E^T) / tr(W H W^T), the mean over matrices, H of inputs that calibration has not "
        "seen. Only the last two rows are calibrated: by the inputs' mean squares, by all their "
        "second moments.",
        "",
        "## All linears of the tiny model's decoder",
        "",
        f"Calibrated on {report.num_scenes} rendered scenes and their questions, measured on "
        f"{report.num_scenes} held-out ones. KL in nats against the float32 reference, where "
        "answers are predicted and at every position (image and question too, on which the model "
        "was not trained to be certain).",
        *tables(report.tiny, (*_COMMON, *_LOGITS)),
        "",
        "## Three matrices in the 0.5B shapes",
        "",
        "Made-up weights of the synthetic checkpoint (896x896, 4864x896, 896x4864) and made-up "
        "inputs: a quarter of the directions in common, strengths uneven. How much `gptq` gains "
        "here follows from that choice; the weight errors and times do not.",
        *tables(report.large, (*_COMMON, *_TIME)),
        "",
        f"Machine: {listed(report.machine)}. "
        f"Load over 15 minutes {report.load_15_minutes}: other work makes times upper bounds.",
    ]
    return "\n".join(lines)


def tables(table: Table, columns: Sequence[_Column]) -> list[str]:
    """One Markdown table for each heading."""
    lines: list[str] = []
    for name, rows in table.items():
        lines += [
            "",
            f"### {name}",
            "",
            "| quantizer |" + "".join(f" {title} |" for title, _ in columns),
            "|---|" + "---:|" * len(columns),
        ]
        for row in rows:
            cells = [show(row) for _, show in columns]
            if row.failed:
                cells = [f"fails: {row.failed}", *[""] * (len(columns) - 1)]
            lines.append(f"| {row.quantizer} |" + "".join(f" {cell} |" for cell in cells))
    return lines
