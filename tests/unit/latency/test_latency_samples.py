"""A file of samples is read as it was written, and a damaged one is refused."""

from pathlib import Path

import pytest
from latency_samples import noisy_blocks, phase, run_of

from validation.latency.roofline import bound_of
from validation.latency.samples import Roofline, SamplesError, Work, read_run, render_run
from validation.latency.table import format_time, terminal_table


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = run_of(phase("decode", noisy_blocks(1), Work(bytes_read=10**6, operations=10**6)))
    (tmp_path / "a.json").write_text(render_run(run))
    assert read_run(tmp_path / "a.json") == run


@pytest.mark.parametrize("sample", ["0.0", "-1.0", '"nan"', '"inf"'])
def test_a_sample_that_is_no_time_is_refused(tmp_path: Path, sample: str) -> None:
    text = render_run(run_of(phase("decode", [[0.123]])))
    (tmp_path / "a.json").write_text(text.replace("0.123", sample))
    with pytest.raises(SamplesError, match="no time above 0"):
        read_run(tmp_path / "a.json")


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="no such file"):
        read_run(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"schema": 7}')
    with pytest.raises(SamplesError, match="expected schema 1, found 7"):
        read_run(tmp_path / "a.json")


def test_the_bound_is_the_larger_of_reading_and_computing() -> None:
    roofline = Roofline(read_bytes_per_s=1e10, sgemm_flop_per_s=1e11, drift=1.0)
    reading = bound_of(Work(bytes_read=10**9, operations=10**9), roofline)
    assert (reading.limit, reading.seconds) == ("reading", pytest.approx(0.1))
    assert reading.fraction(0.2) == pytest.approx(0.5)
    computing = bound_of(Work(bytes_read=10**9, operations=10**11), roofline)
    assert (computing.limit, computing.seconds) == ("sgemm", pytest.approx(1.0))


def test_the_table_shows_the_fraction_of_the_bound() -> None:
    work = Work(bytes_read=2 * 10**8, operations=1)
    told = terminal_table(run_of(phase("decode", [[0.02] * 10], work)))
    assert "50% (reading)" in told
    assert "50.0 tokens/s" in told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (4.5e-5, "45.0 us"), (0.25, "250 ms"), (3e-8, "30 ns")],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
