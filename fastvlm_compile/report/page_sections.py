"""The sections of the page, each of them markup below its heading; empty for none."""

from collections.abc import Callable, Sequence

from fastvlm_compile.console import format_bytes, format_duration
from fastvlm_compile.report.html import Column, Markup, facts, folded, join, rows_of, table, tag
from fastvlm_compile.report.page_data import ReportData, StageLine, VariantLine, Verdict
from fastvlm_compile.report.plot_style import NAMES
from fastvlm_compile.report.variants import REFERENCE, Cell
from fastvlm_compile.report.variants_plot import variants_plot
from fastvlm_compile.report.variants_table import not_core_ml
from validation.gate_table import NOT_CORE_ML, format_number

_SIGNS = {"passed": "✓", "failed": "✗", "not judged": "–"}
_OUTCOMES = {
    "agreed": "✓ agreed",
    "disagreed": "✗ disagreed",
    "not_run": "– not run",
    "not_supported": "– not supported",
}
_ORIGINS = {True: "hit", False: "run", None: "not recorded"}
_COMPARED = "what was compared, or why not"
_VARIANTS = (
    Column(title="variant"),
    Column(title="shipped", short=True),
    Column(title="bytes", number=True),
    Column(title="bits per weight", number=True),
    Column(title="KL, decoder", number=True),
    Column(title="KL, end to end", number=True),
    Column(title="top 1", number=True),
    Column(title="features' PSNR, dB", number=True),
    Column(title="task accuracy", number=True),
    Column(title="gates", short=True),
    Column(title="executor"),
)
_GROUPS = {**NAMES, REFERENCE: "PyTorch with quantized weights: what quantization alone costs"}
_LEGEND = (
    "Against the float32 PyTorch reference. KL is the mean divergence of the next token's "
    "distribution in nats: of the decoder over all positions of the goldens, and end to end along "
    "each answer as far as it agrees with the reference's. Beside the accuracy stands how many "
    "questions were asked. -: there is nothing of the kind."
)


def verdict_title(verdict: Verdict) -> str:
    """The verdict in a few words."""
    num_judged = verdict.num_passed + verdict.num_failed
    if verdict.status == "failed":
        return f"failed: {verdict.num_failed} of {num_judged} gates are missed"
    if verdict.status == "passed":
        return f"passed: all {num_judged} gates that were judged hold"
    return "not judged: no gate could be"


def verdict_section(data: ReportData) -> Markup:
    """Whether it is good, first of all."""
    verdict = data.verdict
    said = verdict_title(verdict)
    lines = [
        tag(
            "p",
            tag("span", _SIGNS[verdict.status], class_="sign", aria_hidden="true"),
            tag("strong", said[0].upper() + said[1:]),
            class_="said",
        )
    ]
    if verdict.num_not_run:
        lines.append(tag("p", f"{verdict.num_not_run} more were not run; each says why."))
    if verdict.judged_by:
        text = f"Judged by the gates of the recipe {verdict.judged_by}, given for this report."
        lines.append(tag("p", f"{text} They are not those that the bundle was published under."))
    lines += [tag("p", f"{note}.") for note in verdict.notes]
    status = verdict.status.replace(" ", "-")
    return tag("div", *lines, class_=f"verdict {status}", id="verdict")


def origin_section(data: ReportData) -> Markup:
    """What went in and what came out."""
    source = data.source
    shipped = [f"{v.quality.target} {v.quality.variant}" for v in data.variants if v.files]
    what = facts(
        (
            ("checkpoint", source.checkpoint_digest),
            ("licence of the weights", source.license or "not known"),
            ("image", f"{source.image_size} x {source.image_size}, fit {source.fit}"),
            ("tokens of an image", str(source.tokens_per_image)),
            ("context", f"{source.context_length} tokens"),
            ("shipped", ", ".join(shipped) or "nothing"),
            ("files", f"{data.num_files}, {data.size_bytes:,} bytes together"),
        )
    )
    recipe = tag("pre", tag("code", source.recipe), tabindex="0")
    return join([what, folded("The whole recipe", recipe)], "\n")


def variants_section(data: ReportData) -> Markup:
    """One table of all variants, and below it the reasons that its cells refer to."""
    reasons: dict[str, int] = {}
    groups: dict[str, list[list[str]]] = {}
    for line in data.variants:
        target = line.quality.target
        name = f"{_GROUPS.get(target, target)}{_remark(line)}"
        groups.setdefault(name, []).append(_variant(line, reasons))
    bodies = [(name, rows_of(lines)) for name, lines in groups.items()]
    parts: list[str] = [table("Variants: bytes and quality", _VARIANTS, bodies)]
    parts.append(tag("p", _LEGEND))
    if reasons:
        parts.append(tag("p", "Not run:"))
        items = (tag("li", reason) for reason in reasons)
        parts.append(tag("ol", *items))
    return join(parts, "\n")


def _remark(line: VariantLine) -> str:
    return f" ({NOT_CORE_ML})" if not_core_ml(line.quality) else ""


def _variant(line: VariantLine, reasons: dict[str, int]) -> list[str]:
    row = line.quality

    def shown(cell: Cell, number: Callable[[float], str] = format_number) -> str:
        if cell.value is not None:
            return number(cell.value)
        if not cell.reason:
            return "-"
        return f"not run [{reasons.setdefault(cell.reason, len(reasons) + 1)}]"

    asked = row.task_accuracy.num_cases
    return [
        row.variant,
        "yes" if line.files else "no" if row.has_files else "-",
        shown(row.size_bytes, lambda value: f"{value:,.0f}"),
        shown(row.bits_per_weight, lambda value: f"{value:.2f}"),
        *map(shown, (row.kl_decoder, row.kl_end_to_end, row.top1, row.psnr_db)),
        shown(row.task_accuracy, lambda value: f"{format_number(value)} ({asked})"),
        _gates(line),
        "; ".join(row.executors) or "-",
    ]


def _gates(line: VariantLine) -> str:
    counts = (
        (line.num_passed, "passed"),
        (line.num_failed, "FAILED"),
        (line.num_not_run, "not run"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count) or "none"


def quality_section(data: ReportData) -> Markup:
    """The plot of the build, drawn again."""
    rows = [line.quality for line in data.variants if line.quality.target in NAMES]
    return figure(variants_plot(data.name, rows, ids="quality-")) if rows else Markup("")


def figure(svg: str) -> Markup:
    """A plot in a box that scrolls where the page is narrower."""
    attributes = {"class_": "scroll plot", "role": "group", "tabindex": "0"}
    return tag("div", Markup(svg), aria_label="Plot, as wide as it needs", **attributes)


def stages_section(data: ReportData) -> Markup:
    """What the build cost."""
    stages = data.stages
    if not stages.lines:
        return tag("p", f"Times of stages: {stages.reason}.")
    columns = (
        Column(title="stage"),
        Column(title="time", number=True),
        Column(title="peak memory", number=True),
        Column(title="bytes of its result", number=True),
        Column(title="latest build", short=True),
    )
    cells = [
        (
            line.stage,
            format_duration(line.duration_s) if line.duration_s is not None else "-",
            format_bytes(line.peak_memory_bytes) if line.peak_memory_bytes is not None else "-",
            f"{line.size_bytes:,}" if line.size_bytes is not None else "-",
            _ORIGINS[line.from_store],
        )
        for line in stages.lines
    ]
    total = sum(line.duration_s or 0.0 for line in stages.lines)
    said = (
        f"{len(stages.lines)} stages, {format_duration(total)} together, each when it was last "
        f"run. {_hits(stages.lines)} -: the store has its result no more."
    )
    listed = table("Stages, the longest first", columns, [("", rows_of(cells))])
    return join([tag("p", said), folded("All stages", listed)], "\n")


def _hits(lines: Sequence[StageLine]) -> str:
    told = [line.from_store for line in lines if line.from_store is not None]
    if not told:
        return "Cache hits are not recorded: no build since has told them."
    return f"The latest build found {told.count(True)} of {len(lines)} in the store."


def consumers_section(data: ReportData) -> Markup:
    """What became of the bundle in the hands of those who load it."""
    if not data.consumers:
        return Markup("")
    names = ("consumer", "version", "variant", "outcome")
    columns = [
        *(Column(title=name, short=True) for name in names),
        Column(title=_COMPARED, long=True),
    ]
    cells = [
        (row.consumer, row.version or "-", row.variant or "-", _OUTCOMES[row.status], row.detail)
        for row in data.consumers
    ]
    return table("Programs that load the bundle", columns, [("", rows_of(cells))])


def provenance_section(data: ReportData) -> Markup:
    """Which bytes these are, and how to find out that they still are."""
    source = data.source
    what = facts(
        (
            ("manifest", data.manifest_digest),
            ("checkpoint", source.checkpoint_digest),
            ("sources of fastvlm-compile", source.source_revision),
        )
    )
    columns = [Column(title="tool"), Column(title="version")]
    tools = table("Tools that took part", columns, [("", rows_of(source.tools.items()))])
    command = tag("pre", tag("code", "fastvlm-compile verify DIR"), tabindex="0")
    verify = tag("p", "To find any byte that was changed, lost or added since:")
    return join([what, verify, command, folded("Tools", tools)], "\n")
