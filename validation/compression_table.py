"""Where the error of quantized variants comes from, as Markdown: compression and the rest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from validation.gate_table import format_number
from validation.measurement import Measurement
from validation.quantized_variants import QuantizedVariant

_HEAD = (
    "| target | variant | component | metric | compression: PyTorch with the quantized weights "
    "against the reference | conversion and precision: the runtime against that | together: the "
    "runtime against the reference | executor |\n|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A component under the names that the reference and a target give it."""

    reference: str
    component: str
    rest: str
    metric: str


_GRAPHS = (
    _Row(
        reference="vision_encoder",
        component="vision_encoder",
        rest="vision_encoder_conversion",
        metric="relative_l2",
    ),
    _Row(
        reference="embedding",
        component="embed_tokens",
        rest="embed_tokens_conversion",
        metric="relative_l2",
    ),
    _Row(reference="decoder", component="decoder", rest="decoder_conversion", metric="relative_l2"),
    _Row(reference="decoder", component="decoder", rest="decoder_conversion", metric="kl_mean"),
)
_ROUNDED = tuple(
    replace(row, rest="decoder_precision") if row.component == "decoder" else row for row in _GRAPHS
)
"""onnxruntime's decoder rounds activations; what is left without that is a row of the report."""
_PACKAGES = tuple(
    _Row(reference=name, component=name, rest=f"{name}_precision", metric=metric)
    for name, metric in (
        ("vision", "relative_l2"),
        ("projector", "relative_l2"),
        ("decoder", "relative_l2"),
        ("decoder", "kl_mean"),
    )
)
_ROWS: Mapping[str, tuple[_Row, ...]] = {"onnx": _ROUNDED, "mlx": _GRAPHS, "coreml": _PACKAGES}

_Found = Mapping[tuple[str, str, str, str], Measurement]


def compression_table(
    measurements: Sequence[Measurement], variants: Sequence[QuantizedVariant]
) -> str:
    """A section with a line per component of each variant; empty without quantized variants."""
    found = {(m.target, m.variant, m.component, m.metric): m for m in measurements}
    lines = [line for variant in variants for line in _lines(variant, found)]
    if not lines:
        return ""
    table = "\n".join((_HEAD, *lines))
    return f"## Where the error of the quantized variants comes from\n\n{table}\n"


def _lines(variant: QuantizedVariant, found: _Found) -> Iterator[str]:
    for row in _ROWS[variant.target]:
        keys = (
            ("reference", variant.quantization, row.reference, row.metric),
            (variant.target, variant.variant, row.rest, row.metric),
            (variant.target, variant.variant, row.component, row.metric),
        )
        parts = [found.get(key) for key in keys]
        if all(part is None for part in parts):
            continue
        numbers = " | ".join(format_number(part.value if part else None) for part in parts)
        executor = parts[2].executor if parts[2] is not None else ""
        yield (
            f"| {variant.target} | {variant.variant} | {row.component} | {row.metric} | {numbers} "
            f"| {executor} |"
        )
