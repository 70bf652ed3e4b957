"""`variants.md`: bytes and quality of every variant, and what is behind the mixed ones."""

from collections.abc import Callable, Iterator, Sequence

from fastvlm_compile.report.policies import PolicySummary
from fastvlm_compile.report.variants import REFERENCE, Cell, VariantQuality
from validation.gate_table import NOT_CORE_ML, format_number

_HEADERS = (
    "target",
    "variant",
    "bytes",
    "bits per weight",
    "KL, decoder",
    "KL, end to end",
    "top 1",
    "top 5",
    "features' PSNR, dB",
    "answers equal",
    "task accuracy",
    "lost of it",
    "executor",
)
_LEGEND = """\
Against the float32 PyTorch reference. KL is the mean divergence of the next token's distribution in
nats: of the decoder over all positions of the goldens, and end to end along each answer as far as
it agrees with the reference's. Top 1 and top 5 are shares of the decoder's tokens in common.
Features are the tower's for coreml, and what the projector makes of them elsewhere. `-`: there is
nothing of the kind. Bytes are of all files, shipped or not."""


def variants_page(
    name: str, rows: Sequence[VariantQuality], policies: Sequence[PolicySummary], *, plot: str
) -> str:
    """The whole page as Markdown; equal arguments, equal text.

    Args:
        name: of the recipe.
        rows: of `variant_rows`.
        policies: of `policy_summaries`.
        plot: file name of the plot beside the page.
    """
    sections = [
        f"# Variants of {name}",
        f"![Bytes of each variant against its quality]({plot})",
        *_table(rows),
        _LEGEND,
    ]
    if any(row.target == REFERENCE for row in rows):
        sections.append(
            f"`{REFERENCE}` is PyTorch with the quantized weights: what quantization alone costs."
        )
    if variants := [f"coreml.{row.variant}" for row in rows if not_core_ml(row)]:
        sections.append(f"{', '.join(variants)}: {NOT_CORE_ML}.")
    if policies:
        sections += ["## The mixed variants: predicted and measured", _MIXED_LEGEND]
        for policy in policies:
            sections += _mixed(policy, rows)
    return "\n\n".join(sections) + "\n"


def not_core_ml(row: VariantQuality) -> bool:
    """Whether it must be said that the numbers of a Core ML variant are not Core ML's."""
    return row.target == "coreml" and bool(row.executors) and not row.executed_by_core_ml


def _table(rows: Sequence[VariantQuality]) -> Iterator[str]:
    """The table, and below it the reasons that its cells refer to."""
    reasons: dict[str, int] = {}

    def shown(cell: Cell, number: Callable[[float], str] = format_number) -> str:
        if cell.value is not None:
            return number(cell.value)
        if not cell.reason:
            return "-"
        return f"not run [{reasons.setdefault(cell.reason, len(reasons) + 1)}]"

    lines = [
        _line(
            (
                row.target,
                row.variant,
                shown(row.size_bytes, _bytes),
                shown(row.bits_per_weight, _bits),
                *map(shown, (row.kl_decoder, row.kl_end_to_end, row.top1, row.top5, row.psnr_db)),
                shown(row.greedy),
                shown(row.task_accuracy, _of_questions(row.task_accuracy.num_cases)),
                shown(row.task_accuracy_drop),
                "; ".join(row.executors) or "-",
            )
        )
        for row in rows
    ]
    yield "\n".join((_line(_HEADERS), "|" + "---|" * len(_HEADERS), *lines))
    if reasons:
        yield "\n".join(f"- [{number}] {reason}" for reason, number in reasons.items())


_MIXED_LEGEND = """\
Predicted is the sum of what each tensor costs alone, measured is what all of them cost together,
both on the calibration prompts, in nats a position. Tensors count as the language model's alone."""
_STORED_HEADERS = ("stored as", "tensors", "their predicted KL", "all tensors so, predicted KL")
_NEIGHBOUR_HEADERS = ("", "variant", "bytes", "bits per weight", "KL, decoder", "KL, end to end")


def _mixed(policy: PolicySummary, rows: Sequence[VariantQuality]) -> Iterator[str]:
    yield f"### {policy.target}"
    measured = f"measured {format_number(policy.measured_kl)}"
    reference = _find(rows, REFERENCE, policy.quantization)
    if reference is not None:
        measured += (
            f"; on the goldens, with calibrated rounding, {_plain(reference.kl_decoder)} in the "
            f"decoder and {_plain(reference.kl_end_to_end)} end to end"
        )
    yield (
        f"{_bits(policy.bits_per_weight)} bits per weight: KL predicted "
        f"{format_number(policy.predicted_kl)}, {measured}."
    )
    lines = [
        _line(
            (
                each.scheme,
                str(each.num_tensors),
                format_number(each.predicted_kl) if each.num_tensors else "-",
                format_number(each.uniform_kl),
            )
        )
        for each in policy.stored
    ]
    yield "\n".join((_line(_STORED_HEADERS), "|---|---|---|---|", *lines))
    neighbours = [
        _line(
            (
                place,
                row.variant,
                _plain(row.size_bytes, _bytes),
                _plain(row.bits_per_weight, _bits),
                _plain(row.kl_decoder),
                _plain(row.kl_end_to_end),
            )
        )
        for place, row in _neighbours(policy, rows)
    ]
    if neighbours:
        yield "\n".join((_line(_NEIGHBOUR_HEADERS), "|---|---|---|---|---|---|", *neighbours))


def _neighbours(
    policy: PolicySummary, rows: Sequence[VariantQuality]
) -> Iterator[tuple[str, VariantQuality]]:
    """The variant itself between the next smaller and the next larger of its target."""
    own = _find(rows, policy.target, policy.variant)
    if own is None or own.size_bytes.value is None:
        return
    others = [row for row in rows if row.target == policy.target and row is not own]
    sized = [(row.size_bytes.value, row) for row in others if row.size_bytes.value is not None]
    smaller = [pair for pair in sized if pair[0] <= own.size_bytes.value]
    larger = [pair for pair in sized if pair[0] > own.size_bytes.value]
    if smaller:
        yield "next smaller", max(smaller, key=lambda pair: pair[0])[1]
    yield "this one", own
    if larger:
        yield "next larger", min(larger, key=lambda pair: pair[0])[1]


def _find(rows: Sequence[VariantQuality], target: str, variant: str) -> VariantQuality | None:
    return next((row for row in rows if (row.target, row.variant) == (target, variant)), None)


def _plain(cell: Cell, number: Callable[[float], str] = format_number) -> str:
    if cell.value is not None:
        return number(cell.value)
    return f"not run ({cell.reason})" if cell.reason else "-"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _of_questions(count: int) -> Callable[[float], str]:
    """Variants that are slow to run are asked fewer, which a bare share would hide."""
    return lambda value: f"{format_number(value)} ({count} questions)"


def _bytes(value: float) -> str:
    return f"{value:,.0f}"


def _bits(value: float) -> str:
    return f"{value:.2f}"
