"""Each compute unit runs in a process of its own, and one that dies is a row, not the end."""

import gc
import re
from pathlib import Path

import numpy as np
import pytest

from reference.errors import UserError
from reference.generation import GenerationSettings, generate
from validation.runtimes.core_ml_executor import Opened, Packages
from validation.runtimes.coreml_units import (
    SCHEMA_VERSION,
    UnitReport,
    UnitReports,
    UnitRun,
    UnitSettings,
    run_units,
    unit_table,
    write_unit_reports,
)
from validation.runtimes.ml_program_runtime import MLProgramRuntime
from validation.typed_json import read_json

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

PIXELS = np.full((1, 3, 128, 128), 0.25, dtype=np.float32)


def settings(factory: str, *units: str, limit_s: float = 60.0, plans: bool = False) -> UnitSettings:
    return UnitSettings(
        units=units or ("cpu_only",),  # type: ignore[arg-type]
        call_limit_s=limit_s,
        with_plans=plans,
        factory=f"coreml_mac_stand_ins:{factory}",
        is_core_ml=False,
    )


def features(opened: Opened) -> np.ndarray:
    return opened.vision.vision_features(PIXELS)


def only(runs: "tuple[UnitRun[np.ndarray], ...]") -> UnitReport:
    (run,) = runs
    assert run.result is None
    return run.report


def test_a_unit_that_aborts_is_a_failed_row_and_the_others_go_on(tower: Packages) -> None:
    every = settings("aborts_on_gpu", "cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")
    runs = run_units(tower, features, settings=every)
    assert [run.report.status for run in runs] == ["ran", "failed", "ran", "failed"]
    assert runs[1].report.reason == (
        "compute units cpu_and_gpu: the process ended with signal SIGABRT during vision_features"
    )
    for run in (runs[0], runs[2]):
        assert run.result is not None
        assert (run.result == 0.25).all()
    assert "cpu_and_gpu  failed: compute units cpu_and_gpu: the process ended" in unit_table(
        [run.report for run in runs]
    )


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("aborts_while_opened", "the process ended with signal SIGABRT during executor"),
        ("leaves", "the process ended with exit code 7 during vision_features"),
        ("killed", "the process ended with signal SIGKILL during vision_features"),
        ("fails", "RuntimeError: Error computing NN outputs."),
        ("no_such_factory", "AttributeError: module 'coreml_mac_stand_ins' has no attribute"),
    ],
)
def test_every_way_to_fail_is_told_in_the_row(tower: Packages, factory: str, reason: str) -> None:
    report = only(run_units(tower, features, settings=settings(factory)))
    assert report.status == "failed"
    assert report.reason.startswith(f"compute units cpu_only: {reason}")
    assert report.plans_reason == report.caches_reason == report.reason


def test_a_unit_that_never_returns_is_ended_at_its_limit(tower: Packages) -> None:
    report = only(run_units(tower, features, settings=settings("hangs", limit_s=3)))
    # On a busy machine even its start may take longer; the limit is the same.
    assert re.fullmatch(
        r"compute units cpu_only: no answer to (vision_features|executor) within 3 s", report.reason
    )


def test_something_that_writes_between_the_answers_is_a_failure(tower: Packages) -> None:
    report = only(run_units(tower, features, settings=settings("writes_nonsense")))
    assert "the answer to vision_features is none" in report.reason


def test_a_measurement_that_swallows_the_end_of_its_process_is_still_failed(
    tower: Packages,
) -> None:
    def careless(opened: Opened) -> int:
        failures = 0
        for _ in range(3):
            try:
                opened.vision.vision_features(PIXELS)
            except UserError:
                failures += 1
        return failures

    (run,) = run_units(tower, careless, settings=settings("killed"))
    assert run.result == 3
    assert run.report.status == "failed"
    assert "SIGKILL" in run.report.reason


def test_a_plan_that_ends_the_process_does_not_lose_what_was_measured(tower: Packages) -> None:
    (run,) = run_units(tower, features, settings=settings("aborts_in_the_plan", plans=True))
    assert run.report.status == "ran"
    assert run.result is not None
    assert "SIGABRT during compute_plans" in run.report.plans_reason


def test_the_measurements_own_mistakes_are_not_hidden(tower: Packages) -> None:
    def damaged(opened: Opened) -> None:
        raise UserError("goldens.json: damaged")

    with pytest.raises(UserError, match="damaged"):
        run_units(tower, damaged, settings=settings("aborts_on_gpu"))


def test_unknown_compute_units_are_a_users_error() -> None:
    with pytest.raises(UserError, match="'gpu' are none of all, cpu_only"):
        settings("executor", "gpu")


def test_the_process_is_told_its_compute_units(tower: Packages) -> None:
    runs = run_units(
        tower, lambda opened: opened.vision.executor, settings=settings("tells_its_units", "all")
    )
    assert runs[0].result == runs[0].report.executor == "on all"


def test_off_a_mac_every_unit_says_why_it_did_not_run(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    runs = run_units(packages, features, settings=UnitSettings())
    assert [run.report.compute_units for run in runs] == [
        "cpu_only",
        "cpu_and_gpu",
        "cpu_and_ne",
        "all",
    ]
    for run in runs:
        assert run.report.status == "not run"
        assert run.report.reason in (
            "Core ML needs macOS, this is linux",
            "packages with states need macOS 15, this is linux",
        )


def test_core_mls_own_process_refuses_where_there_is_no_core_ml(packages: Packages) -> None:
    """The real factory in a real process, as far as it goes without a Mac."""
    asked = UnitSettings(units=("cpu_only",), is_core_ml=False)
    report = only(run_units(packages, features, settings=asked))
    assert report.status == "failed"
    assert "Core ML needs macOS" in report.reason


@pytest.mark.parametrize("form", ["packages", "siblings"])
def test_a_model_in_another_process_computes_what_it_computes_here(
    request: pytest.FixtureRequest, form: str
) -> None:
    chosen: Packages = request.getfixturevalue(form)
    assert chosen.whole is not None
    here = MLProgramRuntime(chosen.whole)
    rng = np.random.default_rng(0)
    pixels = rng.random((2, 3, 128, 128), dtype=np.float32)
    rows = rng.standard_normal((1, 11, 64), dtype=np.float32)
    asked = GenerationSettings(max_new_tokens=5, num_beams=2)
    greedy = GenerationSettings(max_new_tokens=5)
    ids = np.array([[1, 2, 3]])

    def compare(opened: Opened) -> str:
        there = opened.whole
        assert there is not None
        assert there is opened.vision
        assert there.executed_by_core_ml is False
        assert np.array_equal(there.encode_image(pixels), here.encode_image(pixels))
        assert np.array_equal(there.embed(ids), here.embed(ids))
        assert np.array_equal(there.logits(rows), here.logits(rows))
        pieces = [rows[0, :5], rows[0, 5:]]
        assert np.array_equal(there.logits_after(pieces), here.logits_after(pieces))
        for each in (greedy, asked):
            found = generate(there.session(rows), each).token_ids
            assert found == generate(here.session(rows), each).token_ids
            gc.collect()
        return there.executor

    (run,) = run_units(chosen, compare, cache_rows=rows[0], settings=settings("executor"))
    assert run.result == "stand-in"
    assert run.report.status == "ran", run.report.reason
    assert run.report.caches_reason == ""


def test_two_sessions_side_by_side_do_not_disturb_each_other(packages: Packages) -> None:
    assert packages.whole is not None
    here = MLProgramRuntime(packages.whole)
    rows = np.random.default_rng(1).standard_normal((2, 9, 64), dtype=np.float32)

    def measure(opened: Opened) -> list[np.ndarray]:
        assert opened.whole is not None
        first, second = (opened.whole.session(each[None]) for each in rows)
        first.start()
        second.start()
        return [session.step(np.array([7])) for session in (first, second)]

    (run,) = run_units(packages, measure, settings=settings("executor"))
    assert run.result is not None
    for found, each in zip(run.result, rows, strict=True):
        alone = here.session(each[None])
        alone.start()
        assert np.array_equal(found, alone.step(np.array([7])))


def test_a_cache_that_does_not_remember_fails_the_unit(packages: Packages) -> None:
    rows = np.random.default_rng(2).standard_normal((11, 64), dtype=np.float32)
    (run,) = run_units(packages, lambda _: 1, cache_rows=rows, settings=settings("forgetful"))
    assert run.report.status == "failed"
    assert run.report.reason.startswith("the caches: prompt/decoder.mlpackage/key_cache: ")
    assert "all zero" in run.report.reason
    assert run.result == 1


def test_reports_go_to_json_and_back(tower: Packages, tmp_path: Path) -> None:
    runs = run_units(tower, features, settings=settings("aborts_on_gpu", "cpu_only", "all"))
    reports = [run.report for run in runs]
    path = tmp_path / "units.json"
    write_unit_reports(path, reports)

    read = read_json(path, UnitReports, schema=SCHEMA_VERSION, error=UserError)
    assert list(read.units) == reports
