"""`README.md` of a bundle: what it holds, what it expects, how to run it, how it was checked."""

from collections.abc import Callable, Sequence

from fastvlm_compile.bundle.licence import licence_front_matter, licence_notice
from fastvlm_compile.bundle.manifest import InputContract, Manifest, Provenance, Variant
from fastvlm_compile.bundle.times import LATENCY_FILE, Times, VariantTimes
from fastvlm_compile.bundle.usage import usage
from fastvlm_compile.report.variants import REFERENCE, Cell, VariantQuality
from validation.consumers.outcome import Outcome
from validation.gate_table import executor_notes, format_number, summary
from validation.latency.table import format_time

CARD_NAME = "README.md"
PLOT = "reports/variants.svg"
"""Bytes against quality, with a page of the same name; a bundle may be without."""
PARITY_PAGE = "reports/parity.md"

_FITS = {
    "pad": "centred on a black square, so that nothing of it is lost, then resized (bicubic)",
    "crop": "resized by its shortest edge (bicubic), then its middle square is kept",
}
_POSITIONS = {"before": "before the question", "after": "right after the question"}
_STATUSES = {"not_run": "not run", "not_supported": "not supported"}
_QUALITY_LEGEND = """\
Against the float32 PyTorch reference: KL is the mean divergence of the decoder's next token in
nats, top 1 the share of tokens in common, accuracy the share of held-out questions answered right.
The executor is what computed these numbers. `-`: not measured."""
_SPEED_LEGEND = f"""\
The first token comes after an image and a question. Medians of `fastvlm-compile latency`, whose
samples are in [{LATENCY_FILE}]({LATENCY_FILE}). Measured on:"""


def model_card(
    manifest: Manifest,
    quality: Sequence[VariantQuality],
    *,
    real_tower: bool,
    times: Times | None = None,
) -> str:
    """Markdown with the front matter of the Hugging Face hub; equal arguments, equal text.

    Args:
        manifest: of the bundle; whether its `files` hold the card itself makes no difference.
        quality: what the build measured of the variants, as far as it did.
        real_tower: whether the vision tower has the released sizes.
        times: how fast its variants were, where that was measured.
    """
    paths = {file.path for file in manifest.files}
    sections = (
        _front_matter(manifest),
        f"# {manifest.name}\n\nFastVLM, compiled for on-device use by fastvlm-compile from the "
        f"checkpoint with the digest\n`{manifest.provenance.checkpoint_digest}`.\n",
        _variants(manifest.variants, quality, times),
        _reports(manifest.variants, paths),
        usage(manifest, real_tower=real_tower),
        _consumers(manifest.consumers),
        _input_contract(manifest.contract),
        f"## Licence\n\n{licence_notice(manifest.provenance.license)}\n"
        if manifest.provenance.license
        else "",
        _provenance(manifest.provenance),
    )
    return "\n".join(section for section in sections if section)


def _front_matter(manifest: Manifest) -> str:
    targets = sorted({variant.target for variant in manifest.variants} - {REFERENCE})
    tags = "".join(f"  - {tag}\n" for tag in ("fastvlm", *targets))
    licence = manifest.provenance.license
    licence_lines = licence_front_matter(licence) if licence else ""
    return f"---\n{licence_lines}pipeline_tag: image-text-to-text\ntags:\n{tags}---\n"


def _variants(
    variants: Sequence[Variant], quality: Sequence[VariantQuality], times: Times | None
) -> str:
    measured = {(row.target, row.variant): row for row in quality}
    headers = ["target", "variant", "files", "size", "bits per weight"]
    if measured:
        headers += ["KL", "top 1", "accuracy", "executor"]
    if times is not None:
        headers += ["first token", "tokens per s"]
    headers.append("gates")
    lines = [_line(headers), "|" + "---|" * len(headers)]
    for variant in variants:
        if not variant.files:
            continue
        row = measured.get((variant.target, variant.variant))
        cells = [
            variant.target,
            variant.variant,
            _files(variant, variants),
            f"{variant.size_bytes / 1e6:,.1f} MB",
            f"{variant.bits_per_weight:.2f}",
        ]
        cells += _quality(row) if measured else []
        if times is not None:
            cells += _speed(times.variants.get((variant.target, variant.variant), ()))
        lines.append(_line([*cells, summary(variant.gates) if variant.gates else "none"]))
    legend = f"\n{_QUALITY_LEGEND}\n" if measured else ""
    if times is not None:
        legend += f"\n{_SPEED_LEGEND} {times.machine}.\n"
    return "## Variants\n\n" + "\n".join(lines) + f"\n{legend}"


def _quality(row: VariantQuality | None) -> list[str]:
    if row is None:
        return ["-"] * 4
    cells = [_cell(each) for each in (row.kl_decoder, row.top1, row.task_accuracy)]
    return [*cells, "; ".join(row.executors) or "-"]


def _speed(rows: Sequence[VariantTimes]) -> list[str]:
    """Time to the first token, and tokens a second after it."""
    first = [_timed(row, row.first_token_s, format_time) for row in rows]
    rate = [_timed(row, row.decode_s, lambda seconds: f"{1 / seconds:.3g}") for row in rows]
    return ["<br>".join(first) or "-", "<br>".join(rate) or "-"]


def _timed(row: VariantTimes, seconds: float | None, show: Callable[[float], str]) -> str:
    units = f" ({row.units})" if row.units else ""
    return f"{show(seconds)}{units}" if seconds is not None else "-"


def _cell(cell: Cell) -> str:
    return format_number(cell.value) if cell.value is not None else "-"


def _files(variant: Variant, variants: Sequence[Variant]) -> str:
    """Each by its name; the folder where it holds nothing of another variant."""
    folder = variant.files[0].rpartition("/")[0]
    inside = [v for v in variants if any(name.startswith(f"{folder}/") for name in v.files)]
    if inside == [variant] and all(name.startswith(f"{folder}/") for name in variant.files):
        return f"`{folder}/`"
    return "<br>".join(f"`{name}`" for name in variant.files)


def _reports(variants: Sequence[Variant], paths: set[str]) -> str:
    """The verdicts in a line, and where all the numbers are."""
    rows = [row for variant in variants for row in variant.gates]
    parts = []
    if PLOT in paths:
        page = f"{PLOT.removesuffix('.svg')}.md"
        parts += [
            f"![Bytes of each variant against its quality]({PLOT})",
            f"All variants that were measured, shipped or not: [{page}]({page}).",
        ]
    if rows:
        where = f"; each of them: [{PARITY_PAGE}]({PARITY_PAGE})" if PARITY_PAGE in paths else ""
        parts.append(f"Gates of all variants together: {summary(rows)}{where}.")
    parts += (f"{note}." for note in executor_notes(rows))
    return "\n\n".join(parts) + "\n" if parts else ""


def _consumers(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    headers = ("consumer", "version", "variant", "outcome", "what was compared, or why not")
    lines = [_line(headers), "|" + "---|" * len(headers)]
    for row in outcomes:
        status = "loaded and agreed" if row.status == "agreed" else row.status
        cells = (row.consumer, row.version, row.variant, _STATUSES.get(status, status), row.detail)
        lines.append(_line([cell or "-" for cell in cells]))
    return (
        "## Who loaded it\n\nThe programs themselves, as their registries have them, with this "
        "bundle and its goldens\n(`fastvlm-compile consumers .`).\n\n" + "\n".join(lines) + "\n"
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _input_contract(contract: InputContract) -> str:
    size = contract.image_size
    sizes = ", ".join(map(str, contract.further_coreml_sizes))
    further = f" The Core ML packages take {sizes} too, by function." if sizes else ""
    return f"""## What goes in

- Image: RGB, {_FITS[contract.fit]},
  at {size} x {size}; values in 0..1, mean {list(contract.image_mean)},
  standard deviation {list(contract.image_std)}; float32 [1, 3, {size}, {size}].
  It becomes {contract.tokens_per_image} tokens.{further}
- Fit: `{contract.fit}`. Another fit than the one the model was trained with costs accuracy.
- Image position: {_POSITIONS[contract.image_position]}.
- Context: {contract.context_length} tokens for prompt, images and answer together.
- Prompt, `{{prompt}}` standing for the question:

```text
{contract.prompt_template}```
"""


def _provenance(provenance: Provenance) -> str:
    tools = "\n".join(f"- {tool} {version}" for tool, version in sorted(provenance.tools.items()))
    return f"""## Where it comes from

- checkpoint `{provenance.checkpoint_digest}`
- fastvlm-compile sources `{provenance.source_revision}`
{tools}

<details><summary>Its recipe</summary>

```yaml
{provenance.recipe.rstrip()}
```

</details>
"""
