"""The page of `benchmarks.latency`."""

from statistics import median

from benchmarks.contestant import DECODE, FIRST_TOKEN, PREFILL, VISION
from benchmarks.latency_contests import ANSWER_TOKENS, INT8_VISION, PLAIN_BUNDLE, Memory
from benchmarks.latency_report import (
    MEMORY_TARGET,
    PSNR_TARGET_DB,
    TARGETS,
    Judged,
    Report,
    Target,
    judge,
    typical,
)
from benchmarks.page import listed, table
from validation.latency.significance import LEVEL

MIB = 2**20

PRODUCTS = frozenset(
    (
        *("Conv", "FusedConv", "QLinearConv", "Gemm", "MatMul", "FusedMatMul", "MatMulNBits"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"),
    )
)
"""Types of node that multiply matrices."""

TRIED = (
    "Decoders: attention is one node with rotary inside (GroupQueryAttention), norms are fused "
    "with the sum before them, query, key and value are one product and so are gate and up, the "
    "head sees the last position alone, activations are rounded to 8 bits (accuracy level 4), "
    "weights are mapped. Blocks of 128 in place of 32 (int4-fast) read less and scale a quarter as "
    "often; GPTQ makes up for them.",
    "Decoding with one row is bound by the 4-bit kernel and not by memory: compare tokens/s with "
    "what reading allows. genai and we call the same kernel.",
    "A prompt through dequantized weights and float32 products would take the prompt's operations "
    "at the machine's sgemm, longer than the 8-bit products of the 4-bit kernel take.",
    "Tower in float32: BatchNorms and layer scales are folded into convolutions, in the plain "
    "export by onnxruntime itself; both then spend their time in the same convolutions.",
    "Tower in 8 bits: what is left beside products is GELU and the steps between 8 bits and "
    "float32 around the depthwise convolutions, which stay in float32.",
    "Memory: the tower is let go of before the decoder is opened, without onnxruntime's arena, "
    "which would outlive it.",
)
"""What is built in or was measured, in words that no figure here has to follow."""


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
        *_bounds(report),
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


def _bounds(report: Report) -> list[str]:
    """Of each target of time that is missed: what it leaves, and what the products alone take."""
    rows = []
    for judged in (judge(report, target) for target in TARGETS):
        target, spent = judged.target, products_ms(report, judged.target)
        if judged.verdict != "missed" or spent is None:
            continue
        theirs = typical(report.blocks(target.against, target.phase))
        allowed = 1e3 * theirs / target.least
        rows.append(
            (
                *(f"{target.title}, {target.ours}", f"{target.against} / {target.least}"),
                f"{allowed:.1f}",
                f"{1e3 * typical(report.blocks(target.ours, target.phase)):.1f}",
                f"{spent:.1f}",
                "no" if spent > allowed else f"{allowed - spent:.1f} for all else",
            )
        )
    return [
        "## What bounds what is missed",
        "",
        "Matrix products and convolutions are onnxruntime's kernels, whatever the graph around "
        "them: where they alone take longer than a target leaves, no graph of these nodes can meet "
        "it. They are those of the profile above, of the phases that count.",
        "",
        *table(
            ("", "target", "leaves ms", "ours ms", "products alone ms", "within reach"),
            rows or [("nothing is missed", *[""] * 5)],
        ),
        "",
        *(f"- {line}" for line in TRIED),
    ]


def products_ms(report: Report, target: Target) -> float | None:
    """What our products take in a target's phase, milliseconds; None where nothing was profiled."""
    parts: tuple[tuple[str, str], ...] = ((target.ours, target.phase),)
    if target.phase == FIRST_TOKEN:  # the tower of these decoders has 8 bits
        parts = ((INT8_VISION, VISION), (target.ours, PREFILL))
    total = 0.0
    for graph, phase in parts:
        kinds = report.profiles.get(graph, {}).get(phase)
        if kinds is None:
            return None
        total += sum(ms for kind, ms in kinds.items() if kind.split()[0] in PRODUCTS)
    return total


def _machine(report: Report) -> list[str]:
    speeds = report.roofline
    roofline = (
        f"reading {speeds.read_bytes_per_s / 1e9:.1f} GB/s, sgemm "
        f"{speeds.sgemm_flop_per_s / 1e9:.0f} GFLOP/s (drift {speeds.drift:.2f})"
    )
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in report.file_bytes.items())
    return [
        f"Machine: {listed(report.machine)}; {roofline}. Peers: {listed(report.peers)}; files: "
        f"{sizes}. Load before the run {report.load_before:.1f}; processors that others kept busy "
        f"meanwhile {report.others_during:.2f}. Bundles: {listed(report.bundles)}.",
    ]
