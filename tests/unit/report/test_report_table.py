"""The page of the variants, word for word."""

from report_samples import measured, variant

from fastvlm_compile.report.policies import PolicySummary, Stored
from fastvlm_compile.report.variants import variant_rows
from fastvlm_compile.report.variants_table import variants_page

POLICY = PolicySummary(
    target="onnx",
    variant="mixed",
    quantization="mixed",
    bits_per_weight=4.4987,
    predicted_kl=0.0123456,
    measured_kl=0.013,
    stored=(
        Stored(scheme="int4 block 128", num_tensors=5, predicted_kl=0.012, uniform_kl=0.05),
        Stored(scheme="int8 block 64", num_tensors=2, predicted_kl=0.0003456, uniform_kl=0.001),
        Stored(scheme="int4 block 32", num_tensors=0, predicted_kl=0.0, uniform_kl=float("nan")),
    ),
)

MEASUREMENTS = (
    measured("reference", "mixed", "decoder", "kl_mean", 0.021),
    measured("reference", "mixed", "end_to_end", "kl_mean", 0.011),
    *variant("onnx", "fp32", size_bytes=8e6, kl=1e-13, accuracy=1.0),
    *variant("onnx", "int4-fast", size_bytes=2.1e6, kl=0.02, accuracy=0.95),
    *variant("onnx", "int8", size_bytes=3e6, kl=0.001, accuracy=0.99),
    *variant("onnx", "mixed", size_bytes=2.2e6, kl=0.01, accuracy=0.98),
    *variant("coreml", "lut4", size_bytes=2e6, kl=float("nan")),
)

PAGE = """\
# Variants of tiny

![Bytes of each variant against its quality](variants.svg)

| target | variant | bytes | bits per weight | KL, decoder | KL, end to end | top 1 | top 5 \
| features' PSNR, dB | answers equal | task accuracy | lost of it | executor |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
| onnx | fp32 | 8,000,000 | 32.00 | 2e-13 | 1e-13 | 0.99 | 0.975 | 40.5 | 0.9 \
| 1 (100 questions) | 0 \
| onnxruntime 1 |
| onnx | int4-fast | 2,100,000 | 8.40 | 0.04 | 0.02 | 0.99 | 0.975 | 40.5 | 0.9 \
| 0.95 (100 questions) | 0.05 \
| onnxruntime 1 |
| onnx | int8 | 3,000,000 | 12.00 | 0.002 | 0.001 | 0.99 | 0.975 | 40.5 | 0.9 \
| 0.99 (100 questions) | 0.01 \
| onnxruntime 1 |
| onnx | mixed | 2,200,000 | 8.80 | 0.02 | 0.01 | 0.99 | 0.975 | 40.5 | 0.9 \
| 0.98 (100 questions) | 0.02 \
| onnxruntime 1 |
| coreml | lut4 | 2,000,000 | 8.00 | nan | nan | 0.99 | 0.975 | 40.5 | 0.9 | not run [1] \
| not run [1] | ML Program executor |
| reference | mixed | - | - | 0.021 | 0.011 | - | - | - | - | - | - | torch 2 |

- [1] asked no questions

Against the float32 PyTorch reference. KL is the mean divergence of the next token's distribution in
nats: of the decoder over all positions of the goldens, and end to end along each answer as far as
it agrees with the reference's. Top 1 and top 5 are shares of the decoder's tokens in common.
Features are the tower's for coreml, and what the projector makes of them elsewhere. `-`: there is
nothing of the kind. Bytes are of all files, shipped or not.

`reference` is PyTorch with the quantized weights: what quantization alone costs.

coreml.lut4: ML Program parity, not executed by Core ML.

## The mixed variants: predicted and measured

Predicted is the sum of what each tensor costs alone, measured is what all of them cost together,
both on the calibration prompts, in nats a position. Tensors count as the language model's alone.

### onnx

4.50 bits per weight: KL predicted 0.01235, measured 0.013; on the goldens, with calibrated \
rounding, 0.021 in the decoder and 0.011 end to end.

| stored as | tensors | their predicted KL | all tensors so, predicted KL |
|---|---|---|---|
| int4 block 128 | 5 | 0.012 | 0.05 |
| int8 block 64 | 2 | 0.0003456 | 0.001 |
| int4 block 32 | 0 | - | nan |

|  | variant | bytes | bits per weight | KL, decoder | KL, end to end |
|---|---|---|---|---|---|
| next smaller | int4-fast | 2,100,000 | 8.40 | 0.04 | 0.02 |
| this one | mixed | 2,200,000 | 8.80 | 0.02 | 0.01 |
| next larger | int8 | 3,000,000 | 12.00 | 0.002 | 0.001 |
"""


def test_the_page_says_all_of_it() -> None:
    page = variants_page("tiny", variant_rows(MEASUREMENTS), (POLICY,), plot="variants.svg")
    assert page == PAGE


def test_equal_reasons_share_a_number_and_others_do_not() -> None:
    rows = variant_rows(
        (
            measured("onnx", "fp32", "end_to_end", "kl_mean", None, reason="first"),
            measured("onnx", "fp32", "decoder", "kl_mean", None, reason="second"),
            measured("onnx", "fp16", "end_to_end", "kl_mean", None, reason="first"),
        )
    )
    page = variants_page("tiny", rows, (), plot="variants.svg")
    assert "| onnx | fp32 | - | - | not run [1] | not run [2] |" in page
    assert "| onnx | fp16 | - | - | - | not run [2] |" in page
    assert "- [1] second\n- [2] first\n" in page


def test_a_bar_in_an_executors_name_does_not_end_its_cell() -> None:
    row = measured("onnx", "fp32", "decoder", "kl_mean", 0.1)
    rows = variant_rows((row,))
    odd = variant_rows((type(row)(**{**vars(row), "executor": "a|b"}),))
    assert r"a\|b" in variants_page("tiny", odd, (), plot="p.svg")
    assert "onnxruntime 1 |" in variants_page("tiny", rows, (), plot="p.svg")


def test_without_mixed_variants_there_is_no_section_of_them() -> None:
    page = variants_page("tiny", variant_rows(MEASUREMENTS), (), plot="variants.svg")
    assert "mixed variants" not in page
    assert PAGE.startswith(page.rstrip())


def test_a_mixed_variant_whose_size_is_not_known_has_no_neighbours() -> None:
    rows = variant_rows((measured("onnx", "mixed", "decoder", "kl_mean", 0.1),))
    page = variants_page("tiny", rows, (POLICY,), plot="variants.svg")
    assert "measured 0.013.\n" in page
    assert "next" not in page.partition("### onnx")[2].replace("next token", "")
