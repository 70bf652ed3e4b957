"""The report of the variants in a real bundle."""

import xml.etree.ElementTree as ET  # our own text, nothing from outside

import pytest
from tiny_build import Build

from fastvlm_compile.bundle.manifest import read_manifest
from validation.parity_file import read_parity

pytestmark = pytest.mark.xdist_group("tiny-bundle")


def test_a_shipped_variant_weighs_what_the_manifest_says_and_others_weigh_too(tiny: Build) -> None:
    measured = {
        (m.target, m.variant, m.metric): m.value
        for m in read_parity(tiny.bundle / "reports/parity.json").measurements
        if m.component == "files"
    }
    variants = [v for v in read_manifest(tiny.bundle).variants if v.target in ("onnx", "coreml")]
    assert any(not variant.files for variant in variants)
    for variant in variants:
        size_bytes = measured[variant.target, variant.variant, "size_bytes"]
        bits = measured[variant.target, variant.variant, "bits_per_weight"]
        assert size_bytes is not None
        assert bits is not None
        assert size_bytes > 0
        if variant.files:
            assert size_bytes == variant.size_bytes
            assert round(bits, 3) == variant.bits_per_weight


def test_the_card_leads_to_the_plot_and_the_page_names_every_variant(tiny: Build) -> None:
    assert "](reports/variants.svg)" in (tiny.bundle / "README.md").read_text()
    page = (tiny.bundle / "reports/variants.md").read_text()
    plot = ET.parse(tiny.bundle / "reports/variants.svg").getroot()
    labels = [each.text for each in plot.iter() if "label" in each.get("class", "").split()]
    for variant in read_manifest(tiny.bundle).variants:
        if variant.target in ("onnx", "coreml", "mlx"):
            assert f"| {variant.target} | {variant.variant} |" in page
            assert variant.variant in labels
