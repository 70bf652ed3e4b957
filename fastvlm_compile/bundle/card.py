"""`README.md` of a bundle: what it holds, what it expects, how to run it, how it was checked."""

from collections.abc import Sequence

from fastvlm_compile.bundle.layout import runtimes_of
from fastvlm_compile.bundle.manifest import InputContract, Provenance, Variant
from validation.gate_table import markdown_table, summary

_FITS = {
    "pad": "centred on a black square, so that nothing of it is lost, then resized (bicubic)",
    "crop": "resized by its shortest edge (bicubic), then its middle square is kept",
}
_POSITIONS = {"before": "before the question", "after": "right after the question"}


def model_card(
    name: str,
    contract: InputContract,
    variants: Sequence[Variant],
    provenance: Provenance,
    *,
    plot: str,
) -> str:
    """Markdown with the front matter of the Hugging Face hub; equal arguments, equal text.

    Args:
        name: of the bundle.
        contract: what goes in.
        variants: what it holds.
        provenance: what it was made from.
        plot: where in the bundle the plot of bytes against quality is, its page of the same name
            beside it; empty for none.
    """
    sections = (
        _front_matter(variants),
        f"# {name}\n\nFastVLM, compiled for on-device use by fastvlm-compile from the checkpoint "
        f"with the digest\n`{provenance.checkpoint_digest}`.\n",
        _run(variants),
        _variants(variants),
        _quality(plot),
        _input_contract(contract),
        _checks(variants),
        _provenance(provenance),
    )
    return "\n".join(section for section in sections if section)


def _front_matter(variants: Sequence[Variant]) -> str:
    targets = sorted({variant.target for variant in variants})
    tags = "".join(f"  - {tag}\n" for tag in ("fastvlm", *targets))
    return f"---\npipeline_tag: image-text-to-text\ntags:\n{tags}---\n"


def _run(variants: Sequence[Variant]) -> str:
    options = {"onnxruntime": ""}
    commands = [
        'fastvlm-compile generate . --image photo.jpg --prompt "What is this?"'
        + options.get(runtime, f" --runtime {runtime}")
        for runtime in runtimes_of(variants)
    ]
    lines = ["fastvlm-compile verify .", *commands]
    return "## Run it\n\n```sh\n" + "\n".join(lines) + "\n```\n"


def _variants(variants: Sequence[Variant]) -> str:
    rows = [
        f"| {variant.target} | {variant.variant} | {_files(variant)} | {_size(variant.size_bytes)} "
        f"| {_bits(variant)} | {summary(variant.gates) if variant.gates else 'none'} |"
        for variant in variants
    ]
    head = (
        "| target | variant | files | size | bits per weight | checks |\n|---|---|---|---|---|---|"
    )
    return "## Variants\n\n" + "\n".join([head, *rows]) + "\n"


def _quality(plot: str) -> str:
    if not plot:
        return ""
    page = f"{plot.removesuffix('.svg')}.md"
    return (
        f"![Bytes of each variant against its quality]({plot})\n\n"
        f"All of it in numbers, shipped or not: [{page}]({page}).\n"
    )


def _files(variant: Variant) -> str:
    return "<br>".join(f"`{name}`" for name in variant.files) or "not shipped"


def _bits(variant: Variant) -> str:
    return f"{variant.bits_per_weight:.2f}" if variant.files else "-"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes else "-"


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


def _checks(variants: Sequence[Variant]) -> str:
    rows = [row for variant in variants for row in variant.gates]
    if not rows:
        return ""
    return f"## How it was checked\n\n{markdown_table(rows)}"


def _provenance(provenance: Provenance) -> str:
    tools = "\n".join(f"- {tool} {version}" for tool, version in sorted(provenance.tools.items()))
    return f"""## Where it comes from

- checkpoint `{provenance.checkpoint_digest}`
- fastvlm-compile sources `{provenance.source_revision}`
{tools}

```yaml
{provenance.recipe.rstrip()}
```
"""
