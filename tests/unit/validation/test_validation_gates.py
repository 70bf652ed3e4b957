"""Gates: NaN and silence fail, the reason is told, the copied threshold passes."""

import math
from dataclasses import replace

import pytest

from reference.errors import UserError
from validation.gates import Gate, all_passed, judge, passing_threshold
from validation.measurement import METRICS, Measurement


def measured(metric: str = "relative_l2", value: float = 0.1, **more) -> Measurement:
    common = {"target": "onnx", "variant": "fp32", "component": "decoder", "executor": "ort"}
    return Measurement(metric=metric, value=value, **{**common, **more})


def gate(metric: str = "relative_l2", **bound) -> Gate:
    return Gate(
        target="onnx",
        variant="fp32",
        component="decoder",
        metric=metric,
        why="because",
        **(bound or {"max": 0.2}),
    )


def test_a_value_within_its_threshold_passes_and_shows_its_margin():
    (row,) = judge([measured(value=0.15)], [gate(max=0.2)])
    assert row.status == "passed"
    assert row.margin == pytest.approx(0.05)
    assert (row.why, row.executor) == ("because", "ort")


def test_a_value_past_its_threshold_fails_and_says_what_would_pass():
    (row,) = judge([measured(value=0.123456)], [gate(max=0.1)])
    assert row.status == "failed"
    assert row.passes_at == 0.124
    assert judge([measured(value=0.123456)], [gate(max=row.passes_at)])[0].status == "passed"


@pytest.mark.parametrize("bound", [{"max": 1e9}, {"min": -1e9}])
def test_nan_never_passes(bound):
    metric = "relative_l2" if "max" in bound else "cosine"
    (row,) = judge([measured(metric, math.nan)], [gate(metric, **bound)])
    assert row.status == "failed"
    assert row.passes_at is None


def test_a_gate_nobody_measured_has_failed():
    (row,) = judge([], [gate()])
    assert (row.status, row.reason) == ("failed", "nothing measured")
    (other,) = judge([measured(component="vision_encoder")], [gate()])
    assert other.status == "failed"


def test_a_measurement_that_was_not_run_is_told_with_its_reason():
    not_run = measured(value=None, not_run_reason="no Core ML runtime on this platform")
    (row,) = judge([not_run], [gate()])
    assert (row.status, row.reason) == ("not run", "no Core ML runtime on this platform")
    assert row.value is None


def test_every_structural_measurement_is_judged_without_being_asked_for():
    broken = measured("structure", 0.0, detail="logits: expected shape [2], found [3]")
    rows = judge([broken], [gate()])
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "expected shape [2]" in rows[0].reason
    assert "not comparable" in rows[1].reason
    assert judge([measured("structure", 1.0)], [])[0].status == "passed"


def test_rows_that_did_not_run_do_not_count_as_failed_but_do_not_pass_a_build_alone():
    not_run = measured(value=None, not_run_reason="none here")
    rows = judge([not_run], [gate()])
    assert not all_passed(rows)
    assert all_passed((*rows, *judge([measured()], [gate()])))
    assert not all_passed((*judge([measured()], [gate()]), *judge([], [gate()])))


def test_infinite_psnr_passes_any_minimum():
    (row,) = judge([measured("psnr_db", math.inf)], [gate("psnr_db", min=100.0)])
    assert row.status == "passed"
    assert row.margin == math.inf


@pytest.mark.parametrize(
    ("bound", "value", "passes"),
    [({"max": -1}, -1, True), ({"max": -1}, 3, False), ({"min": 8}, -1, True),
     ({"min": 8}, 9, True), ({"min": 8}, 7, False)],
)  # fmt: skip
def test_first_difference_minus_one_is_later_than_any_index(bound, value, passes):
    rows = judge([measured("first_difference", value)], [gate("first_difference", **bound)])
    assert (rows[0].status == "passed") is passes


@pytest.mark.parametrize("value", [0.123456, 1.0001e-7, 98765.4, -0.00123456, 0.999999])
@pytest.mark.parametrize("bound", ["max", "min"])
def test_a_threshold_copied_from_the_report_always_passes(bound, value):
    threshold = passing_threshold(bound, value)
    assert threshold is not None
    assert value <= threshold if bound == "max" else value >= threshold
    assert threshold == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(
    ("metric", "bound", "words"),
    [
        ("psnr", {"min": 30}, "unknown metric 'psnr'; known: structure"),
        ("cosine", {"max": 0.9}, "use min, not max"),
        ("kl_max", {"min": 0.9}, "use max, not min"),
        ("kl_max", {"min": 0.9, "max": 1}, "exactly one"),
        ("kl_max", {"max": None}, "exactly one"),
        ("kl_max", {"max": math.nan}, "must be a number"),
        ("first_difference", {"max": 5}, "max: -1"),
    ],
)
def test_a_senseless_gate_is_refused(metric, bound, words):
    with pytest.raises(UserError, match=r"onnx\.fp32\.decoder") as caught:
        gate(metric, **bound)
    assert words in caught.value.message


def test_two_thresholds_on_one_side_are_refused():
    with pytest.raises(UserError, match="given twice"):
        judge([measured()], [gate(), replace(gate(), why="another")])


def test_a_measurement_has_a_value_or_a_reason():
    with pytest.raises(ValueError, match="a value or a reason"):
        measured(value=None)
    with pytest.raises(ValueError, match="a value or a reason"):
        measured(value=1.0, not_run_reason="but it was")
    with pytest.raises(ValueError, match="unknown metric"):
        measured("likeness")


def test_every_metric_has_a_meaning_for_the_report():
    assert all(metric.meaning for metric in METRICS.values())


def test_a_number_for_trained_weights_does_not_judge_random_ones() -> None:
    trained = replace(gate(max=0.1), weights="trained")
    (row,) = judge([measured(value=0.5)], [trained], random_weights=True)
    assert (row.status, row.value) == ("not run", None)
    assert row.reason == "it is for trained weights; these are random, and give 0.5"
    assert judge([measured(value=0.5)], [trained])[0].status == "failed"
    (row,) = judge([], [trained], random_weights=True)
    assert row.status == "failed", "nothing measured is a failure with any weights"


def test_a_metric_may_have_one_threshold_for_any_weights_and_one_for_trained_ones() -> None:
    gates = [gate(max=0.9), replace(gate(max=0.1), weights="trained")]
    rows = judge([measured(value=0.5)], gates, random_weights=True)
    assert [row.status for row in rows] == ["passed", "not run"]
    assert [row.status for row in judge([measured(value=0.5)], gates)] == ["passed", "failed"]
