"""What is wrong with a measurement is named together with its cure."""

from dataclasses import replace

import numpy as np
from latency_samples import noisy_block, phase, run_of

from validation.latency.samples import Conditions
from validation.latency.stability import phase_warnings, run_warnings

STEADY = np.random.default_rng(2).normal(1, 0.01, 90)


def warnings(samples: np.ndarray) -> str:
    return "\n".join(phase_warnings(phase("decode", [samples.tolist()])))


def test_steady_samples_are_not_complained_about() -> None:
    assert warnings(STEADY) == ""
    assert phase_warnings(phase("decode", [noisy_block(3, num_runs=90)[:20]])) is not None


def test_a_large_spread_is_named() -> None:
    assert "vary by" in warnings(np.random.default_rng(3).uniform(0.5, 1.5, 90))


def test_outliers_are_named_and_then_the_spread_is_not_named_again() -> None:
    told = warnings(np.where(np.arange(90) % 9 == 0, 5 * STEADY, STEADY))
    assert "11% of the runs are far from the rest" in told
    assert "vary by" not in told


def test_drift_is_named_with_its_direction() -> None:
    rising = STEADY * np.linspace(1, 1.2, 90)
    assert "slower from the first third to the last; cure: let the machine cool" in warnings(rising)
    assert "faster" in warnings(rising[::-1])


def test_few_runs_are_named() -> None:
    assert "only 5 runs" in warnings(STEADY[:5])


def test_each_complaint_has_a_cure() -> None:
    run = run_of(phase("decode", [STEADY.tolist()]))
    assert run_warnings(run) == ()
    assert run.roofline is not None
    bad = replace(
        run,
        environment=replace(run.environment, governor="powersave", threads=8),
        conditions=Conditions(load_before=9.0, others_during=1.4),
        roofline=replace(run.roofline, drift=1.5),
    )
    told = run_warnings(bad)
    assert len(told) == 4
    assert all("; cure: " in line for line in told)
    untold = replace(run, conditions=Conditions(load_before=9.0, others_during=-1.0))
    assert "the load was 9.0" in run_warnings(untold)[0]
