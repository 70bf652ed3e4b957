"""A history only ever grows, and a damaged line is named."""

from pathlib import Path

import pytest
from latency_samples import noisy_blocks, phase, run_of, with_threads

from validation.latency.history import FILE_NAME, HistoryError, append, read_history, sparkline
from validation.latency.samples import LatencyRun
from validation.latency.trend import trend_table


def decode_run(seed: int, *, factor: float = 1.0) -> LatencyRun:
    return run_of(phase("decode", noisy_blocks(seed, factor=factor)))


def test_adding_never_changes_what_is_there(tmp_path: Path) -> None:
    contents = []
    for seed in range(3):
        append(tmp_path, decode_run(seed))
        contents.append((tmp_path / FILE_NAME).read_bytes())
    assert contents[1].startswith(contents[0])
    assert contents[2].startswith(contents[1])
    assert contents[2].count(b"\n") == 3


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    added = [append(tmp_path / "new", decode_run(seed)) for seed in range(2)]
    assert read_history(tmp_path / "new") == (*added[0], *added[1])


def test_of_several_runs_all_are_added_or_none(tmp_path: Path) -> None:
    append(tmp_path, decode_run(1), decode_run(2))
    assert len(read_history(tmp_path)) == 2
    for runs in ((decode_run(3), decode_run(2)), (decode_run(3), decode_run(3))):
        with pytest.raises(HistoryError, match="there already"):
            append(tmp_path, *runs)
    assert len(read_history(tmp_path)) == 2


def test_the_same_run_is_not_added_twice(tmp_path: Path) -> None:
    append(tmp_path, decode_run(1))
    with pytest.raises(HistoryError, match="there already"):
        append(tmp_path, decode_run(1))


@pytest.mark.parametrize(
    ("damage", "line", "what"),
    [
        (lambda lines: [lines[0], b"{oops", lines[2]], 2, "not JSON"),
        (lambda lines: [lines[0].replace(b'"schema":1', b'"schema":9'), *lines[1:]], 1, "schema 1"),
        (
            lambda lines: [*lines[:2], lines[2].replace(b'"p50_s":', b'"p51_s":')],
            3,
            "missing p50_s",
        ),
        (lambda lines: [lines[0], b"", lines[2]], 2, "not JSON"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_added(
    tmp_path: Path, damage: object, line: int, what: str
) -> None:
    for seed in range(3):
        append(tmp_path, decode_run(seed))
    path = tmp_path / FILE_NAME
    lines = path.read_bytes().splitlines()
    assert callable(damage)
    damaged = b"".join(each + b"\n" for each in damage(lines))
    path.write_bytes(damaged)
    with pytest.raises(HistoryError, match=f"line {line}: damaged") as caught:
        append(tmp_path, decode_run(7))
    assert what in caught.value.message
    assert path.read_bytes() == damaged


def test_a_torn_last_line_is_named(tmp_path: Path) -> None:
    append(tmp_path, decode_run(1))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(HistoryError, match="line 1: damaged: it was not written to its end"):
        read_history(tmp_path)


def test_an_empty_folder_has_no_history(tmp_path: Path) -> None:
    assert trend_table(read_history(tmp_path)) == "the history holds no runs yet"


def test_the_trend_rises_with_the_medians(tmp_path: Path) -> None:
    for step in range(4):
        append(tmp_path, decode_run(1, factor=1 + step / 10))
    told = trend_table(read_history(tmp_path))
    assert "▁▃▆█" in told
    assert "+30.0%" in told


def test_environments_are_kept_apart(tmp_path: Path) -> None:
    append(tmp_path, decode_run(1))
    append(tmp_path, with_threads(decode_run(2, factor=2), 1))
    told = trend_table(read_history(tmp_path))
    assert told.count("trend") == 2
    assert "+100" not in told


def test_a_sparkline_of_equal_values_is_flat() -> None:
    assert sparkline((2.0, 2.0, 2.0)) == "▁▁▁"
    assert sparkline((0.0, 1.0)) == "▁█"
