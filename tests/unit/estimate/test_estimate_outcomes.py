"""What a build took is kept beside the estimate from before it."""

import dataclasses
from pathlib import Path

import pytest
from toy_build import run_toys, toy_plan, toy_stage
from toy_stages import TextConfig

from fastvlm_compile.errors import StoreError
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.outcomes import (
    Off,
    StageOutcome,
    is_off,
    load_outcomes,
    outcomes_recorded,
)
from fastvlm_compile.estimate.tables import outcomes_json, outcomes_table
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from reference.errors import UserError

_GB = 10**9
FIRST = Estimate(memory_bytes=7 * _GB, disk_bytes=5, time_s=1.0)
SECOND = dataclasses.replace(FIRST, memory_bytes=8 * _GB)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "store")


def _plan(text: str = "a") -> Plan:
    first = toy_stage("write", TextConfig(text=text), name="first")
    second = toy_stage("join", name="second", inputs={"a": "first"})
    return toy_plan(first, second)


def _build(store: Store, plan: Plan, estimate: Estimate) -> None:
    store.open()
    with outcomes_recorded(store, "toy", dict.fromkeys(("first", "second"), estimate)):
        run_toys(plan, store.root)


def test_every_stage_that_was_built_is_recorded(store: Store) -> None:
    _build(store, _plan(), FIRST)
    found = load_outcomes(store, "toy").stages
    assert found.keys() == {"first", "second"}
    assert found["first"].estimate == FIRST
    took = found["first"].outcome
    assert (took.disk_bytes, took.memory_bytes > 10**6, took.time_s > 0) == (1, True, True)
    assert found["first"].off == ("memory",)


def test_what_was_restored_keeps_the_estimate_from_before_it_was_built(store: Store) -> None:
    _build(store, _plan(), FIRST)
    before = load_outcomes(store, "toy")
    _build(store, _plan(), SECOND)
    assert load_outcomes(store, "toy") == before
    _build(store, _plan("b"), SECOND)
    assert load_outcomes(store, "toy").stages["first"].estimate == SECOND


def test_a_build_that_fails_records_what_it_built(store: Store) -> None:
    failing = toy_plan(
        toy_stage("write", TextConfig(text="a"), name="first"),
        toy_stage("refuse", name="second", inputs={"a": "first"}),
    )
    with pytest.raises(UserError):
        _build(store, failing, FIRST)
    assert load_outcomes(store, "toy").stages.keys() == {"first"}


def test_the_table_tells_shares_and_what_is_off(store: Store) -> None:
    row = StageOutcome(
        key="k",
        estimate=Estimate(memory_bytes=3 * _GB, disk_bytes=2 * _GB, time_s=50.0),
        outcome=Estimate(memory_bytes=2 * _GB, disk_bytes=2 * _GB, time_s=100.0),
    )
    good = dataclasses.replace(row, estimate=row.outcome)
    found = dataclasses.replace(
        load_outcomes(store, "toy"), stages={"golden": row, "weights": good}
    )
    assert outcomes_table(found).splitlines() == [
        "stage    memory            disk                time          off by more than 25 %",
        "golden   2.0 GB  x 1.50  2.0 GB  x 1.00  1 min 40 s  x 0.50  memory, time",
        "weights  2.0 GB  x 1.00  2.0 GB  x 1.00  1 min 40 s  x 1.00",
        "1 of 2 stages are off",
    ]
    assert outcomes_json("toy", found)["stages"][0]["off"] == ["memory", "time"]


def test_a_difference_that_nobody_would_act_on_is_not_off() -> None:
    assert not is_off(4.0, 8.0, Off.TIME_S)
    assert is_off(40.0, 80.0, Off.TIME_S)
    assert not is_off(76.0, 100.0, Off.TIME_S)
    assert is_off(float("nan"), 100.0, Off.TIME_S)


def test_before_any_build_there_is_nothing(store: Store) -> None:
    assert outcomes_table(load_outcomes(store, "toy")) == (
        "nothing was built since estimates are recorded"
    )


def test_a_damaged_record_is_told_by_its_name(store: Store) -> None:
    _build(store, _plan(), FIRST)
    path = store.root / "reports" / "toy" / "estimates.json"
    path.write_text("{")
    with pytest.raises(StoreError, match="damaged") as caught:
        load_outcomes(store, "toy")
    assert str(path) in caught.value.message
