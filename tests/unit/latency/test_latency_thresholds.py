"""A threshold says what it speaks of, or where it is wrong."""

import pytest

from validation.latency.thresholds import ThresholdError, parse_threshold


@pytest.mark.parametrize(
    ("text", "variant", "phase", "quantile", "most"),
    [
        ("decode.p50>5%", "", "decode", "p50", 0.05),
        ("prefill.280.p95 > 7.5 %", "", "prefill.280", "p95", 0.075),
        ("int4-fast:vision.p90>10%", "int4-fast", "vision", "p90", 0.1),
        ("onnxruntime/int4:*.p99>0%", "onnxruntime/int4", "*", "p99", 0.0),
    ],
)
def test_what_is_written_is_read(
    text: str, variant: str, phase: str, quantile: str, most: float
) -> None:
    found = parse_threshold(text)
    assert (found.variant, found.phase, found.quantile) == (variant, phase, quantile)
    assert found.most == pytest.approx(most)


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("decode.p50", 11, "expected '>', found the end"),
        ("decode.p51>5%", 8, "expected one of p50, p90, p95, p99, found 'p51'"),
        ("decoder.p50>5%", 1, "expected one of load, vision"),
        ("int4:p50>5%", 6, "expected PHASE.QUANTILE, found 'p50'"),
        ("decode.p50>5", 12, "expected a number of percent, such as 5%, found '5'"),
        ("decode.p50>-5%", 12, "expected a number of percent, such as 5%, found '-5%'"),
        (":decode.p50>5%", 1, "expected a variant before ':'"),
        ("prefill.x.p50>5%", 1, "found 'prefill.x'"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, column: int, expected: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_threshold(text)
    assert f"column {column}: " in caught.value.message
    assert expected in caught.value.message
    assert caught.value.exit_code == 2


def test_a_phase_without_a_length_speaks_of_all_lengths() -> None:
    threshold = parse_threshold("int4:prefill.p50>5%")
    assert threshold.applies_to("onnxruntime/int4", "prefill.64")
    assert threshold.applies_to("mlx/int4", "prefill.280")
    assert not threshold.applies_to("onnxruntime/int4-fast", "prefill.64")
    assert not threshold.applies_to("onnxruntime/int4", "decode")
