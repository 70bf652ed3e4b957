"""What a build shows: one line per stage, and a live line on a terminal that leaves no trace."""

import io
import re

import pytest

from fastvlm_compile.console import (
    LineReporter,
    LiveLines,
    LiveReporter,
    format_bytes,
    format_duration,
)


def test_a_quiet_build_shows_one_line_per_stage() -> None:
    stream = io.StringIO()
    reporter = LineReporter(stream=stream)
    reporter.started("onnx.toy")
    reporter.progress(1, 2, "layer 1")
    reporter.tell("onnx.toy", "built in 4.2 s, peak 1.1 GB")
    reporter.warning("careful")
    assert stream.getvalue() == (
        f"{'onnx.toy'.ljust(26)}  built in 4.2 s, peak 1.1 GB\nwarning: careful\n"
    )


def test_the_live_line_shows_stage_time_and_progress_and_fits_the_terminal() -> None:
    stream = io.StringIO()
    reporter = LiveReporter(stream=stream, columns=30)
    reporter.started("onnx.toy")
    reporter.progress(3, 24, "model.layers.3.self_attn.q_proj.weight")
    live = stream.getvalue().rpartition("\x1b[K")[2]
    assert live.startswith("onnx.toy  0.0 s  3/24  model")
    assert len(live) < 30


def test_the_live_line_is_gone_when_the_stage_is_done() -> None:
    stream = io.StringIO()
    reporter = LiveReporter(stream=stream, columns=80)
    reporter.started("onnx.toy")
    reporter.tell("onnx.toy", "hit")
    assert stream.getvalue().endswith(f"\r\x1b[K{'onnx.toy'.ljust(26)}  hit\n")


def _screen(text: str) -> list[str]:
    """The lines that a terminal shows after these bytes; all that the reporters use."""
    lines = [""]
    row = 0
    for part in re.split(r"(\r|\n|\x1b\[K|\x1b\[1A)", text):
        match part:
            case "\x1b[K":
                lines[row] = ""
            case "\x1b[1A":
                row -= 1
            case "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            case "\r":
                pass
            case _:
                lines[row] += part
    return lines


def test_stages_that_run_at_once_have_a_live_line_each_and_finished_ones_stay_above() -> None:
    stream = io.StringIO()
    lines = LiveLines(stream=stream, columns=80)
    one = LiveReporter(stream=stream, columns=80, label="a  ", lines=lines)
    two = LiveReporter(stream=stream, columns=80, label="bb ", lines=lines)
    three = two.beside()
    one.started("golden")
    two.started("onnx.toy")
    three.started("mlx.toy")
    three.progress(1, 2, "layer")
    assert _screen(stream.getvalue()) == [
        "a  golden  0.0 s",
        "bb onnx.toy  0.0 s",
        "bb mlx.toy  0.0 s  1/2  layer",
    ]
    two.tell("onnx.toy", "built")
    one.warning("careful")
    assert _screen(stream.getvalue()) == [
        f"bb {'onnx.toy'.ljust(26)}  built",
        "warning: a  careful",
        "a  golden  0.0 s",
        "bb mlx.toy  0.0 s  1/2  layer",
    ]
    three.tell("mlx.toy", "built")
    one.tell("golden", "built")
    assert _screen(stream.getvalue())[-3:] == [
        f"bb {'mlx.toy'.ljust(26)}  built",
        f"a  {'golden'.ljust(26)}  built",
        "",
    ]


def test_without_a_terminal_each_recipe_has_its_name_before_its_lines() -> None:
    stream = io.StringIO()
    LineReporter(stream=stream, label="small  ").tell("golden", "hit")
    assert stream.getvalue() == f"small  {'golden'.ljust(26)}  hit\n"


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.04, "0.0 s"), (4.25, "4.2 s"), (59.94, "59.9 s"), (65, "1 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations_are_short(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (3_400_000, "3.4 MB"), (10**9, "1.0 GB")]
)
def test_sizes_are_in_powers_of_ten(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
