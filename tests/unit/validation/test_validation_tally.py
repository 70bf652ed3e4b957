"""One measurement out of many cases: the worst of them, or the pooled mean of the worst route."""

import math

import pytest

from validation.tally import Tally


def tally() -> Tally:
    return Tally(target="onnx", variant="fp32", component="decoder", executor="ort 1")


def by_metric(t: Tally):
    return {measurement.metric: measurement for measurement in t.measurements()}


def test_the_worst_case_is_kept_and_named():
    t = tally()
    for case, error, likeness in (("a", 0.1, 0.9), ("b", 0.3, 0.99), ("c", 0.2, 0.5)):
        t.add("relative_l2", error, case=case)
        t.add("cosine", likeness, case=case)
    found = by_metric(t)
    assert (found["relative_l2"].value, found["relative_l2"].worst) == (0.3, "b")
    assert (found["cosine"].value, found["cosine"].worst) == (0.5, "c")
    assert found["cosine"].num_cases == 3


@pytest.mark.parametrize("metric", ["relative_l2", "cosine", "psnr_db", "first_difference"])
def test_nan_is_worse_than_any_number(metric):
    t = tally()
    for case, value in (("low", -1e30), ("nan", math.nan), ("high", 1e30)):
        t.add(metric, value, case=case)
    (found,) = t.measurements()
    assert math.isnan(found.value)
    assert found.worst == "nan"


def test_pooled_metrics_are_means_over_positions():
    t = tally()
    t.add("top1_agreement", 1.0, case="long", weight=30)
    t.add("top1_agreement", 0.0, case="short", weight=10)
    (found,) = t.measurements()
    assert (found.value, found.worst) == (0.75, "short")


def test_a_broken_route_is_not_diluted_by_those_that_work():
    t = tally()
    for route, value in (("prefill", 1.0), ("cached", 0.0), ("padded", 1.0)):
        t.add("top1_agreement", value, case="a", route=route, weight=10)
    (found,) = t.measurements()
    assert (found.value, found.worst) == (0.0, "a (cached)")


def test_nan_in_a_pooled_metric_survives_the_mean():
    t = tally()
    t.add("kl_mean", math.nan, case="a")
    t.add("kl_mean", 0.1, case="b")
    assert math.isnan(t.measurements()[0].value)


def test_the_earliest_difference_counts_and_none_is_the_best():
    t = tally()
    for case, index in (("a", -1), ("b", 7), ("c", 2)):
        t.add("first_difference", index, case=case)
    (found,) = t.measurements()
    assert (found.value, found.worst) == (2, "c")


def test_structural_problems_are_told_by_case_without_a_flood():
    t = tally()
    assert t.structure((), case="fine")
    assert not t.structure([f"problem {i}" for i in range(9)], case="broken")
    (found,) = t.measurements()
    assert (found.metric, found.value, found.worst) == ("structure", 0.0, "broken")
    assert "broken: problem 0" in found.detail
    assert "and 6 more" in found.detail


def test_what_was_not_run_has_no_executor():
    (found,) = tally().not_run(["cosine"], "nothing runs it here")
    assert (found.value, found.executor, found.not_run_reason) == (
        None,
        "",
        "nothing runs it here",
    )
