"""parity.json survives a round trip, infinities included, and damage is told."""

import json
import math

import pytest

from reference.errors import UserError
from validation.gate_table import markdown_table, terminal_table
from validation.gates import Gate, judge
from validation.measurement import Measurement
from validation.parity_file import ParityReport, read_parity, write_parity


def report() -> ParityReport:
    common = {"target": "onnx", "variant": "fp32", "component": "decoder"}
    measurements = (
        Measurement(metric="structure", value=1.0, executor="ort", num_cases=3, **common),
        Measurement(metric="psnr_db", value=math.inf, executor="ort", worst="a", **common),
        Measurement(metric="max_abs", value=math.nan, executor="ort", worst="a|b", **common),
        Measurement(metric="cosine", value=None, not_run_reason="no executor", **common),
    )
    gates = [
        Gate(metric="psnr_db", min=60, why="equal graphs", **common),
        Gate(metric="max_abs", max=1e-3, why="float32 rounding", **common),
        Gate(metric="cosine", min=0.99, why="direction", **common),
        Gate(metric="kl_max", max=0.1, why="next token", **common),
    ]
    return ParityReport(measurements=measurements, gates=judge(measurements, gates))


def same(left: float | None, right: float | None) -> bool:
    return repr(left) == repr(right)  # nan is nan here


def test_a_report_with_infinities_and_nan_survives_the_round_trip(tmp_path):
    path = tmp_path / "parity.json"
    write_parity(path, report())
    again = read_parity(path)
    assert [m.metric for m in again.measurements] == [m.metric for m in report().measurements]
    assert all(
        same(a.value, b.value)
        for a, b in zip(again.measurements, report().measurements, strict=True)
    )
    assert [row.status for row in again.gates] == [row.status for row in report().gates]
    assert again.gates[1].value == math.inf
    second = tmp_path / "second.json"
    write_parity(second, again)
    assert second.read_bytes() == path.read_bytes()


def test_the_file_is_strict_json(tmp_path):
    write_parity(tmp_path / "parity.json", report())

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads((tmp_path / "parity.json").read_text(), parse_constant=refuse)
    assert document["schema"] == 1
    assert document["measurements"][1]["value"] == "inf"
    assert document["measurements"][2]["value"] == "nan"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("{", "not valid JSON"),
        ('{"schema": 99}', "expected schema 1, found 99"),
        ("[]", "found []"),
        ('{"schema": 1, "measurements": []}', "missing gates"),
        (
            '{"schema": 1, "gates": [], "measurements": [{"target": 3}]}',
            "measurements[0]: missing variant",
        ),
    ],
)
def test_a_damaged_report_is_told_in_words(tmp_path, content, words):
    path = tmp_path / "parity.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"parity\.json") as caught:
        read_parity(path)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_number_written_as_a_word_is_refused(tmp_path):
    path = tmp_path / "parity.json"
    write_parity(path, report())
    path.write_text(path.read_text().replace('"value": "inf"', '"value": "lots"'))
    with pytest.raises(UserError, match="lots"):
        read_parity(path)


def test_the_terminal_table_says_what_failed_and_what_would_have_passed():
    common = {"target": "onnx", "variant": "fp32", "component": "decoder"}
    measurement = Measurement(
        metric="max_abs", value=0.0123456, executor="ort 1", worst="scene-3", **common
    )
    gates = [
        Gate(metric="max_abs", max=1e-3, why="float32 rounding", **common),
        Gate(metric="kl_max", max=0.1, why="next token", **common),
    ]
    assert terminal_table(judge([measurement], gates)).splitlines() == [
        "status  what               metric   value    threshold  margin    worst case  executor",
        "FAILED  onnx.fp32.decoder  max_abs  0.01235  <= 0.001   -0.01135  scene-3     ort 1",
        "        would pass with max: 0.0124",
        "        why this threshold: float32 rounding",
        "FAILED  onnx.fp32.decoder  kl_max   -        <= 0.1     -         -           -",
        "        nothing measured",
        "        why this threshold: next token",
        "0 passed, 2 failed",
    ]


def test_the_markdown_table_has_one_line_per_gate_and_escapes_bars():
    rows = report().gates
    lines = markdown_table(rows).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(rows)
    assert "a\\|b" in markdown_table(rows)
    assert lines[-1] == "2 passed, 2 failed, 1 not run"
