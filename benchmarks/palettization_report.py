"""The page and the data of `benchmarks.palettization`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.page import listed, write


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One matrix with one scheme, by both.

    Attributes:
        scheme: in words.
        values: the format whose values the weight has.
        theirs_s: coremltools' seconds, once; in one process.
        theirs_cpu_s: of them on a processor.
        theirs_overhead_s: of them, what it takes to palettize nothing.
        ours_s: our seconds with a thread for each processor, the median of some runs.
        ours_cpu_s: on a processor, with one thread, the median of some runs.
        groups: tables.
        groups_higher: groups in which our squared error is higher than theirs.
        groups_lower: groups in which it is lower.
        theirs_error: squared error over squared norm.
        ours_error: likewise.
        worst_group: the largest ratio of our error to theirs.
    """

    scheme: str
    values: str
    theirs_s: float
    theirs_cpu_s: float
    theirs_overhead_s: float
    ours_s: float
    ours_cpu_s: float
    groups: int
    groups_higher: int
    groups_lower: int
    theirs_error: float
    ours_error: float
    worst_group: float

    @property
    def speedup(self) -> float:
        """Wall time, ours with all threads."""
        return self.theirs_s / self.ours_s

    @property
    def cpu_speedup(self) -> float:
        """Processor time, which other work on the machine hardly changes."""
        return self.theirs_cpu_s / self.ours_cpu_s


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """All matrices of all layers of the 0.5B decoder, one after another.

    Attributes:
        scheme: in words.
        num_tensors: matrices.
        num_weights: of all of them.
        seconds: of palettizing, with a thread for each processor; making the weights up apart.
        cpu_s: of that on processors.
        relative_error: squared error over squared norm, of all.
        digest: SHA-256 over all codes and tables.
    """

    scheme: str
    num_tensors: int
    num_weights: int
    seconds: float
    cpu_s: float
    relative_error: float
    digest: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured, and where.

    Attributes:
        matrix: the tensor of the comparisons.
        repeats: runs of ours that a median is of.
        compile_s: of our loops, once a process, and in no other figure.
        comparisons: by values and scheme.
        decoder: ours alone.
        machine: and versions.
        load_1_minute_before: of the whole machine.
        load_1_minute_after: likewise.
    """

    matrix: str
    repeats: int
    compile_s: float
    comparisons: tuple[Comparison, ...]
    decoder: Decoder
    machine: dict[str, str]
    load_1_minute_before: float
    load_1_minute_after: float


def write_report(report_path: Path, report: Report) -> None:
    """Write both files."""
    write(report_path.with_suffix(".json"), json.dumps(asdict(report), indent=2))
    write(report_path.with_suffix(".md"), markdown(report))


def markdown(report: Report) -> str:
    """The report as a page."""
    decoder = report.decoder
    first = next(iter(report.comparisons))
    lines = [
        "# Palettization: exact clustering against coremltools' k-means",
        "",
        f"All {decoder.num_tensors} matrices of the 0.5B decoder's layers "
        f"({decoder.num_weights / 1e6:.0f} million weights), {decoder.scheme}: "
        f"{decoder.seconds:.1f} s on {report.machine['cores']} cores, {decoder.cpu_s:.1f} s of "
        f"processor time. Relative squared error {decoder.relative_error:.5f}.",
        "",
        f"`{report.matrix}`, both in one run. An error is squared, relative to the squared norm; a "
        "group counts as higher or lower when its errors differ by more than a part in 10^9.",
        "",
        "| values | scheme | coremltools s | ours s | faster | coremltools CPU s | ours CPU s "
        "| less CPU | coremltools error | our error | groups | ours higher | ours lower |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [line(row) for row in report.comparisons]
    lines += [
        "",
        f"coremltools' call rewrites the package too, which takes {first.theirs_overhead_s:.2f} s "
        "when nothing is palettized; it runs in one process, as its pool of workers fails when it "
        "is used twice. Of large float16 groups it clusters the distinct values exactly, as we do, "
        "then rounds the table to float16; smaller groups go to scikit-learn.",
        f"Compiling our loops took {report.compile_s:.1f} s, once a process, and is not in the "
        f"figures. Ours are medians of {report.repeats} runs, with a thread for each core and, for "
        "the processor time, with one; coremltools' are single runs.",
        "",
        f"Machine: {listed(report.machine)}. Load "
        f"{report.load_1_minute_before} before, {report.load_1_minute_after} after: other work "
        "makes times upper bounds.",
    ]
    return "\n".join(lines)


def line(row: Comparison) -> str:
    """Its row in the table."""
    cells = (
        row.values,
        row.scheme,
        f"{row.theirs_s:.2f}",
        f"{row.ours_s:.3f}",
        f"{row.speedup:.0f} x",
        f"{row.theirs_cpu_s:.2f}",
        f"{row.ours_cpu_s:.3f}",
        f"{row.cpu_speedup:.0f} x",
        f"{row.theirs_error:.7f}",
        f"{row.ours_error:.7f}",
        *map(str, (row.groups, row.groups_higher, row.groups_lower)),
    )
    return f"| {' | '.join(cells)} |"
