"""What CI reads is well-formed, and says the same as the table."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from latency_samples import noisy_blocks, phase, run_of

from validation.latency.comparison import Comparison, compare
from validation.latency.comparison_text import (
    json_comparison,
    junit_comparison,
    markdown_comparison,
    terminal_comparison,
)
from validation.latency.thresholds import parse_threshold


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Decoding became a tenth slower, the vision tower did not."""
    base = run_of(phase("vision", noisy_blocks(1)), phase("decode", noisy_blocks(2)))
    new = run_of(phase("vision", noisy_blocks(3)), phase("decode", noisy_blocks(4, factor=1.1)))
    limits = [parse_threshold("decode.p50>5%"), parse_threshold("vision.p50>5%")]
    return compare(base, new, limits, names=("main", "a|b <c>"))


def test_junit_counts_and_names_the_failures(comparison: Comparison) -> None:
    root = ET.fromstring(junit_comparison(comparison))
    (suite,) = root.findall("testsuite")
    assert (root.tag, suite.get("tests"), suite.get("failures")) == ("testsuites", "2", "1")
    (failure,) = suite.findall("testcase/failure")
    assert "decode.p50>5%" in str(failure.get("message"))
    assert {case.get("classname") for case in suite} == {"latency.onnxruntime/int4"}


def test_junit_without_thresholds_has_a_case_a_phase(comparison: Comparison) -> None:
    root = ET.fromstring(junit_comparison(replace(comparison, judged=())))
    assert [case.get("name") for case in root.iter("testcase")] == ["vision", "decode"]
    assert not list(root.iter("failure"))


def test_markdown_rows_have_the_header_s_columns(comparison: Comparison) -> None:
    lines = markdown_comparison(comparison).splitlines()
    rows = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1
    assert lines[2].startswith("**1 over the threshold**")
    assert "**slower**" in rows[3]


def test_json_has_everything(comparison: Comparison) -> None:
    document = json.loads(json_comparison(comparison))
    assert [each["status"] for each in document["thresholds"]] == ["failed", "passed"]
    assert document["changes"][1]["ratio"] == pytest.approx(1.1, abs=0.02)
    assert document["changes"][1]["ratio_low"] > 1


def test_the_terminal_tells_passed_and_failed(comparison: Comparison) -> None:
    told = terminal_comparison(comparison)
    assert "failed: decode.p50>5%: onnxruntime/int4 decode p50 " in told
    assert "passed: vision.p50>5%" in told


def test_different_environments_are_labelled_everywhere(comparison: Comparison) -> None:
    labelled = replace(comparison, environment_differences=("threads: 2, then 1",))
    label = "DIFFERENT ENVIRONMENTS: threads: 2, then 1"
    assert label in terminal_comparison(labelled)
    assert label in markdown_comparison(labelled)
    assert json.loads(json_comparison(labelled))["environment_differences"]


def test_too_few_runs_are_neither_passed_nor_failed() -> None:
    base, new = (run_of(phase("decode", [[level] * 3])) for level in (1.0, 2.0))
    few = compare(base, new, [parse_threshold("decode.p50>5%")])
    assert not few.failed
    assert "not judged: decode.p50>5%" in terminal_comparison(few)
    assert "not judged: too few runs" in markdown_comparison(few)
    (suite,) = ET.fromstring(junit_comparison(few)).findall("testsuite")
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert len(suite.findall("testcase/skipped")) == 1
    assert json.loads(json_comparison(few))["thresholds"][0]["status"] == "not judged"
