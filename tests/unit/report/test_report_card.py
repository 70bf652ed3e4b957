"""The model card tells what the bundle holds, what that is worth, and under which licence."""

from dataclasses import replace

import pytest

from fastvlm_compile.bundle import card
from fastvlm_compile.bundle.licence import APPLE, RANDOM, TINY
from fastvlm_compile.bundle.manifest import InputContract, Manifest, Provenance, Variant
from fastvlm_compile.report.variants import variant_rows
from fastvlm_compile.tree_digest import FileRecord
from validation.consumers.outcome import Outcome
from validation.gates import GateRow
from validation.measurement import Measurement

CONTRACT = InputContract(
    image_size=256, fit="pad", image_position="before", context_length=512, tokens_per_image=16
)
VARIANT = Variant(
    target="onnx",
    variant="fp32",
    files=("onnx/vision_encoder.onnx",),
    size_bytes=9_400_000,
    bits_per_weight=33.17,
    gates=(
        GateRow(
            target="onnx",
            variant="fp32",
            component="decoder",
            metric="kl_max",
            status="passed",
            bound="max",
            threshold=1e-6,
            value=1e-9,
            executor="onnxruntime",
            why="rounding",
        ),
    ),
)
MANIFEST = Manifest(
    name="tiny",
    contract=CONTRACT,
    variants=(VARIANT, replace(VARIANT, variant="int8", files=(), size_bytes=0)),
    provenance=Provenance(
        checkpoint_digest="c", source_revision="s", tools={}, recipe="name: tiny", license=TINY
    ),
    files=(),
)


def model_card(manifest, quality, *, real_tower=False) -> str:
    return card.model_card(manifest, quality, real_tower=real_tower)


def _measured(metric: str, component: str, value: float) -> Measurement:
    return Measurement(
        target="onnx",
        variant="fp32",
        component=component,
        metric=metric,
        value=value,
        executor="onnxruntime 1.31.1",
        num_cases=10,
    )


def _with_files(*paths: str) -> Manifest:
    files = tuple(FileRecord(path=path, size_bytes=1, sha256="0") for path in paths)
    return replace(MANIFEST, files=files)


def test_the_card_shows_the_plot_and_links_the_pages() -> None:
    text = model_card(
        _with_files("reports/variants.svg", "reports/variants.md", "reports/parity.md"), ()
    )
    assert "![Bytes of each variant against its quality](reports/variants.svg)" in text
    assert "[reports/variants.md](reports/variants.md)" in text
    assert "1 passed, 0 failed" in text
    assert "[reports/parity.md](reports/parity.md)" in text


def test_a_bundle_without_the_pages_has_no_broken_link() -> None:
    assert "](reports/" not in model_card(MANIFEST, ())


def test_a_row_tells_bytes_bits_quality_and_who_computed_it() -> None:
    quality = variant_rows(
        [
            _measured("kl_mean", "decoder", 1.25e-9),
            _measured("top1_agreement", "decoder", 1.0),
            _measured("task_accuracy", "end_to_end", 0.926),
        ]
    )
    assert (
        "| onnx | fp32 | `onnx/` | 9.4 MB | 33.17 | 1.25e-09 | 1 | 0.926 "
        "| onnxruntime 1.31.1 | 1 passed, 0 failed |"
    ) in model_card(MANIFEST, quality)


def test_what_was_not_measured_is_a_dash_and_without_any_number_there_is_no_column() -> None:
    quality = variant_rows([_measured("kl_mean", "decoder", 1.25e-9)])
    assert "| 1.25e-09 | - | - | onnxruntime 1.31.1 |" in model_card(MANIFEST, quality)
    assert "| KL |" not in model_card(MANIFEST, ())


def test_files_of_variants_that_share_a_folder_are_named() -> None:
    other = replace(VARIANT, variant="fp16", files=("onnx/vision_encoder_fp16.onnx",))
    text = model_card(replace(MANIFEST, variants=(VARIANT, other)), ())
    assert "| onnx | fp32 | `onnx/vision_encoder.onnx` |" in text
    assert "| onnx | fp16 | `onnx/vision_encoder_fp16.onnx` |" in text


def test_what_is_not_shipped_has_no_row() -> None:
    assert "| onnx | int8 |" not in model_card(MANIFEST, ())


@pytest.mark.parametrize(
    ("licence", "front_matter", "notice"),
    [
        (APPLE, "license: apple-amlr\n", "the Apple Machine Learning Research Model License"),
        (TINY, "license: other\nlicense_name: fastvlm-compile-tiny\n", "No\nweight of Apple's"),
        (RANDOM, "license: other\nlicense_name: random-weights\n", "random numbers"),
        ("apache-2.0", "license: apache-2.0\n", "under the licence `apache-2.0`"),
    ],
)
def test_the_licence_of_the_weights_stands_in_front_and_in_words(
    licence: str, front_matter: str, notice: str
) -> None:
    provenance = replace(MANIFEST.provenance, license=licence)
    text = model_card(replace(MANIFEST, provenance=provenance), ())
    assert text.startswith(f"---\n{front_matter}pipeline_tag: image-text-to-text\n")
    assert notice in text.partition("\n## Licence\n")[2]


@pytest.mark.parametrize(
    ("fit", "position", "words"),
    [
        ("pad", "before", ("black square", "before the question", "<image>\n{prompt}<|im_end|>")),
        ("crop", "after", ("shortest edge", "right after the question", "{prompt}<image><|im_end")),
    ],
)
def test_fit_and_image_position_are_stated(fit, position, words: tuple[str, ...]) -> None:
    contract = replace(CONTRACT, fit=fit, image_position=position)
    text = model_card(replace(MANIFEST, contract=contract), ())
    for each in (f"- Fit: `{fit}`.", *words):
        assert each in text


def test_every_consumer_has_its_outcome() -> None:
    rows = (
        Outcome(consumer="a", version="1", variant="onnx.fp32", status="agreed", detail="5 of 5"),
        Outcome(consumer="b", version="", variant="", status="not_supported", detail="no | app"),
        Outcome(consumer="c", version="", variant="", status="not_run", detail="not here"),
        Outcome(consumer="d", version="2", variant="x", status="disagreed", detail="0 of 5"),
    )
    text = model_card(replace(MANIFEST, consumers=rows), ())
    assert "| a | 1 | onnx.fp32 | loaded and agreed | 5 of 5 |" in text
    assert "| b | - | - | not supported | no \\| app |" in text
    assert "| c | - | - | not run | not here |" in text
    assert "| d | 2 | x | disagreed | 0 of 5 |" in text
