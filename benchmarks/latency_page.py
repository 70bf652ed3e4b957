"""The page of `benchmarks.latency`."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.contestant import DECODE, PREFILL
from benchmarks.latency_contests import ANSWER_TOKENS, PLAIN_BUNDLE, Memory
from benchmarks.latency_report import (
    MEMORY_TARGET,
    PSNR_TARGET_DB,
    TARGETS,
    Judged,
    Report,
    judge,
    typical,
)
from validation.latency.significance import LEVEL

MIB = 2**20


def markdown(report: Report) -> str:
    """The page."""
    lines = [
        "# Latency: ours against what a CPU user would pick instead",
        "",
        f"One run: {', '.join(report.bundles)}, {report.threads} threads each, "
        f"{report.num_rounds} rounds in which the contestants take turns (A B C A B C), each in "
        "a process of its own. Medians; a ratio is the other's time over ours, with its "
        f"{LEVEL:.0%} interval (bootstrap over turns and stretches). "
        "`make bench-latency` makes this page.",
        "",
        *table(
            ("", "ours", "against", "ours s", "theirs s", "times as fast", "target", ""),
            [_target_row(report, judge(report, target)) for target in TARGETS]
            + _memory_rows(report),
        ),
        "",
        "Memory is the peak of the resident set of a whole process that answers with "
        f"{ANSWER_TOKENS} tokens, interpreter, libraries and mapped weights included; its ratio is "
        "ours over theirs. In brackets, what was allocated: the system cannot drop that.",
        "",
        *_decoders(report),
        "",
        *_quality(report),
        "",
        *_profiles(report),
        "",
        *_machine(report),
    ]
    return "\n".join(lines)


def _target_row(report: Report, judged: Judged) -> tuple[str, ...]:
    target, interval = judged.target, judged.interval
    mine, theirs = (
        typical(report.blocks(name, target.phase)) for name in (target.ours, target.against)
    )
    return (
        target.title,
        target.ours,
        target.against,
        f"{mine:.4f}",
        f"{theirs:.4f}",
        f"{judged.speedup:.2f} ({interval.low:.2f} to {interval.high:.2f})",
        f">= {target.least}",
        judged.verdict,
    )


def _memory_rows(report: Report) -> list[tuple[str, ...]]:
    (theirs,) = (each for each in report.memory if each.name == PLAIN_BUNDLE)
    rows: list[tuple[str, ...]] = []
    for mine in report.memory:
        if mine is theirs:
            continue
        ratio = median(mine.resident_bytes) / median(theirs.resident_bytes)
        allocated = median(mine.anonymous_bytes) / median(theirs.anonymous_bytes)
        met = ratio <= MEMORY_TARGET
        rows.append(
            (
                "peak memory",
                mine.name,
                theirs.name,
                _mib(mine),
                _mib(theirs),
                f"{ratio:.2f} ({allocated:.2f})",
                f"<= {MEMORY_TARGET}",
                "met" if met else "missed",
            )
        )
    return rows


def _mib(memory: Memory) -> str:
    resident, allocated = (
        median(values) / MIB for values in (memory.resident_bytes, memory.anonymous_bytes)
    )
    return f"{resident:.0f} MiB ({allocated:.0f})"


def _decoders(report: Report) -> list[str]:
    """Tokens a second, the distance to the reference, and what reading the weights allows."""
    kl = report.quality[0].kl
    rows = []
    for name in kl:
        step, prefill = typical(report.blocks(name, DECODE)), typical(report.blocks(name, PREFILL))
        most = ""
        if name in report.decoder_bytes:
            most = f"{report.roofline.read_bytes_per_s / report.decoder_bytes[name]:.0f}"
        rows.append(
            (
                name,
                f"{1 / step:.1f}",
                most,
                f"{prefill:.2f}",
                f"{report.num_tokens / prefill:.0f}",
                *(f"{each.kl[name].kl_mean:.3g}" for each in report.quality),
                *(f"{each.kl[name].top1_agreement:.1%}" for each in report.quality),
            )
        )
    titles = (
        *("decoder", "tokens/s", "reading allows", "prefill s", "prefill tokens/s"),
        *(f"KL, {each.weights}" for each in report.quality),
        *(f"same top token, {each.weights}" for each in report.quality),
    )
    return [
        "## Decoders",
        "",
        f"{report.num_tokens} tokens at once, then {report.num_steps} one by one, each engine with "
        "its own loop. `reading allows`: tokens/s if a step did nothing but read the weights at "
        "the machine's bandwidth. KL(reference || decoder) in nats against PyTorch in float32. "
        "Made-up weights amplify what is rounded until KL ranks nothing; the trained model's rank.",
        "",
        *table(titles, rows),
    ]


def _quality(report: Report) -> list[str]:
    names = list(dict.fromkeys(name for each in report.quality for name in each.psnr_db))
    rows = [
        (
            name,
            *(
                f"{each.psnr_db[name]:.1f}" if name in each.psnr_db else ""
                for each in report.quality
            ),
        )
        for name in names
    ]
    return [
        "## Vision features",
        "",
        "PSNR against PyTorch, dB, of the worst of the images (rendered scenes held out). Target: "
        f"{PSNR_TARGET_DB:.0f} dB of int8 on trained weights.",
        "",
        *table(("graph", *(each.weights for each in report.quality)), rows),
    ]


def _profiles(report: Report) -> list[str]:
    lines = [
        "## Where our time goes",
        "",
        "onnxruntime's profiler on our graphs, ms of one run, the kinds of node above 1 %. Its own "
        "cost is in the numbers.",
        "",
    ]
    rows = []
    for graph, phases in report.profiles.items():
        for phase, kinds in phases.items():
            total = sum(kinds.values())
            largest = sorted(kinds.items(), key=lambda item: -item[1])
            told = ", ".join(
                f"{kind} {ms:.1f} ({ms / total:.0%})" for kind, ms in largest if ms > 0.01 * total
            )
            rows.append((graph, phase, f"{total:.1f}", told))
    return [*lines, *table(("graph", "phase", "ms", "of it"), rows)]


def _machine(report: Report) -> list[str]:
    speeds = report.roofline
    roofline = (
        f"reading {speeds.read_bytes_per_s / 1e9:.1f} GB/s, sgemm "
        f"{speeds.sgemm_flop_per_s / 1e9:.0f} GFLOP/s (drift {speeds.drift:.2f})"
    )
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in report.file_bytes.items())
    return [
        f"Machine: {_listed(report.machine)}; {roofline}. Peers: {_listed(report.peers)}; files: "
        f"{sizes}. Load before the run {report.load_before:.1f}; processors that others kept busy "
        f"meanwhile {report.others_during:.2f}. Bundles: {_listed(report.bundles)}.",
    ]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
