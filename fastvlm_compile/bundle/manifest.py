"""`manifest.json`: what a bundle holds, what it expects, where it came from, how it was checked.

The file is canonical: equal manifests are equal bytes, and `digest` is the sha256 of all of it but
itself. So a change of any byte of the manifest shows, without a second file to hold its digest.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastvlm_compile.errors import BundleError
from fastvlm_compile.tree_digest import FileRecord
from reference.prompt import IMAGE_TOKEN, build_prompt
from validation.consumers.outcome import Outcome
from validation.gates import GateRow

SCHEMA = 1
MANIFEST_NAME = "manifest.json"

# GateRow fields that a variant's entry repeats; target and variant stand above them.
_GATE_FIELDS = (
    "component",
    "metric",
    "status",
    "value",
    "bound",
    "threshold",
    "why",
    "reason",
    "executor",
    "executed_by_core_ml",
)
_FURTHER_SIZES = "further_coreml_sizes"
_SPECIAL_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What must be done to an image and a question before the graphs see them."""

    image_size: int
    """Pixels per side of the square that the vision encoder takes."""
    fit: Literal["pad", "crop"]
    image_position: Literal["before", "after"]
    context_length: int
    """Positions that the prompt, its images and the answer may take together."""
    tokens_per_image: int
    image_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    image_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    further_coreml_sizes: tuple[int, ...] = ()
    """Sizes beside `image_size` that the Core ML packages have functions for."""

    @property
    def prompt_template(self) -> str:
        """The whole prompt, `{prompt}` standing for the question."""
        return build_prompt("{prompt}", image_position=self.image_position)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One runnable form of the model and the verdicts on it."""

    target: str
    variant: str
    files: tuple[str, ...]
    """Paths in the bundle, folders without their content."""
    size_bytes: int
    bits_per_weight: float
    """Bits of the files per weight of the model that they hold, so overhead counts."""
    gates: tuple[GateRow, ...]
    quantization: str = ""
    """Which of the manifest's quantizations the files encode; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the bundle was made from, without a word about the machine that made it."""

    checkpoint_digest: str
    source_revision: str
    """Of fastvlm-compile's own sources."""
    tools: Mapping[str, str]
    """Distribution -> version, of all that took part."""
    recipe: str
    """The whole recipe as canonical text."""
    license: str = ""
    """Of the weights: the hub's identifier, or a name of ours; empty if nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of `manifest.json`."""

    name: str
    contract: InputContract
    variants: tuple[Variant, ...]
    provenance: Provenance
    files: tuple[FileRecord, ...]
    """Every file of the bundle but the manifest, sorted by path."""
    quantizations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name -> tensor -> how it is stored and what chose its codes."""
    consumers: tuple[Outcome, ...] = ()
    """What became of it in the hands of each consumer; written by `consumers`, never by hand."""

    def to_bytes(self) -> bytes:
        """The file's content."""
        body: dict[str, object] = {
            "schema": SCHEMA,
            "name": self.name,
            "contract": _contract_to_json(self.contract),
            "variants": [_variant_to_json(variant) for variant in self.variants],
            "provenance": {
                **asdict(self.provenance),
                "tools": dict(sorted(self.provenance.tools.items())),
            },
            "files": [asdict(file) for file in self.files],
            "quantizations": {
                name: dict(sorted(tensors.items()))
                for name, tensors in sorted(self.quantizations.items())
            },
            "consumers": [asdict(outcome) for outcome in self.consumers],
        }
        return render({**body, "digest": self_digest(body)})


def render(document: Mapping[str, object]) -> bytes:
    """The one spelling of a manifest document, with or without errors in it."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def self_digest(document: Mapping[str, object]) -> str:
    """sha256 of a manifest document's canonical JSON, its own `digest` left out."""
    body = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(bundle: Path) -> Manifest:
    """Reads and checks a bundle's manifest (the other files are `verify`'s business).

    Raises:
        BundleError: no such bundle, or its manifest is absent, damaged or of another schema.
    """
    if not bundle.is_dir():
        raise BundleError(f"{bundle}: there is no such bundle", hint="`fastvlm-compile build` it")
    path = bundle / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{bundle}: no {MANIFEST_NAME}, so this is not a bundle",
            hint="give the folder that holds manifest.json, such as dist/tiny",
        ) from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_manifest(content, source=str(path))


def parse_manifest(content: bytes, *, source: str) -> Manifest:
    """The manifest that `to_bytes` spelled.

    Args:
        content: of the file.
        source: what to call it in messages.

    Raises:
        BundleError: any byte differs from what was written, or the schema is not ours.
    """
    document = _checked_document(content, source)
    try:
        return Manifest(
            name=document["name"],
            contract=_contract_from_json(document["contract"]),
            variants=tuple(_variant_from_json(entry) for entry in document["variants"]),
            provenance=Provenance(**document["provenance"]),
            files=tuple(FileRecord(**entry) for entry in document["files"]),
            quantizations=document["quantizations"],
            consumers=tuple(Outcome(**entry) for entry in document.get("consumers", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{source}: not a bundle's manifest: {error!r}") from error


def _checked_document(content: bytes, source: str) -> dict[str, Any]:
    damaged = "build the bundle again, or copy it again from where it was whole"
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{source}: damaged: not JSON: {error}", hint=damaged) from None
    if not isinstance(document, dict):
        raise BundleError(f"{source}: damaged: not a JSON object", hint=damaged)
    if self_digest(document) != document.get("digest"):
        raise BundleError(f"{source}: damaged: its content is not what `digest` says", hint=damaged)
    if render(document) != content:
        raise BundleError(f"{source}: damaged: its spelling was changed", hint=damaged)
    if document.get("schema") != SCHEMA:
        raise BundleError(
            f"{source}: manifest schema {document.get('schema')!r}, this program reads {SCHEMA}",
            hint="use the version of fastvlm-compile that built it",
        )
    return document


def _contract_to_json(contract: InputContract) -> dict[str, object]:
    return {
        "image": {
            "size": contract.image_size,
            "fit": contract.fit,
            "resample": "bicubic",
            "mean": list(contract.image_mean),
            "std": list(contract.image_std),
            "range": [0.0, 1.0],
            "channels": "RGB",
            "layout": "NCHW",
            "tokens": contract.tokens_per_image,
            **({_FURTHER_SIZES: list(sizes)} if (sizes := contract.further_coreml_sizes) else {}),
        },
        "prompt": {
            "template": contract.prompt_template,
            "image_token": IMAGE_TOKEN,
            "image_position": contract.image_position,
        },
        "context_length": contract.context_length,
    }


def _contract_from_json(entry: dict[str, Any]) -> InputContract:
    image, prompt = entry["image"], entry["prompt"]
    red, green, blue = image["mean"]
    red_std, green_std, blue_std = image["std"]
    return InputContract(
        image_size=image["size"],
        fit=image["fit"],
        image_position=prompt["image_position"],
        context_length=entry["context_length"],
        tokens_per_image=image["tokens"],
        image_mean=(red, green, blue),
        image_std=(red_std, green_std, blue_std),
        further_coreml_sizes=tuple(image.get(_FURTHER_SIZES, ())),
    )


def _variant_to_json(variant: Variant) -> dict[str, object]:
    return {
        "target": variant.target,
        "variant": variant.variant,
        "files": list(variant.files),
        "size_bytes": variant.size_bytes,
        "bits_per_weight": variant.bits_per_weight,
        "quantization": variant.quantization,
        "gates": [
            {name: _number_to_json(getattr(row, name)) for name in _GATE_FIELDS}
            for row in variant.gates
        ],
    }


def _variant_from_json(entry: dict[str, Any]) -> Variant:
    target, variant = entry["target"], entry["variant"]
    rows = []
    for gate in entry["gates"]:
        values = {**gate}
        for name in ("value", "threshold"):
            if isinstance(values[name], str):
                values[name] = _SPECIAL_NUMBERS[values[name]]
        rows.append(GateRow(target=target, variant=variant, **values))
    return Variant(
        target=target,
        variant=variant,
        files=tuple(entry["files"]),
        size_bytes=entry["size_bytes"],
        bits_per_weight=entry["bits_per_weight"],
        gates=tuple(rows),
        quantization=entry["quantization"],
    )


def _number_to_json(value: object) -> object:
    """JSON has no infinities and no NaN; they become the strings that `parity.json` uses."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
