"""The plots of times: every number in them was measured, and nothing falls out of the frame."""

import re
import xml.etree.ElementTree as ET  # our own text, nothing from outside
from dataclasses import replace
from pathlib import Path

import pytest
from report_bundle import make_bundle, samples

from fastvlm_compile.bundle.annotations import digest_of_rest
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.report.axes import rate_axis, time_axis
from fastvlm_compile.report.latency_plot import MOST_TICKS, Spread, latency_plot
from fastvlm_compile.report.page import render_page
from fastvlm_compile.report.page_data import Latency, ReportData
from fastvlm_compile.report.page_reading import ReportRequest, read_report
from fastvlm_compile.report.speed_plot import speed_plot
from fastvlm_compile.store import Store
from validation.latency.samples import render_run
from validation.latency.summary import summarize


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    times = tmp_path / "times.json"
    times.write_text(render_run(samples()), encoding="utf-8")
    bundle = make_bundle(tmp_path / "bundle")
    store = Store(root=tmp_path / "absent")
    return read_report(ReportRequest(bundle=bundle, store=store, latency=times))


def _speed(data: ReportData, latency: Latency) -> str:
    return speed_plot("sample", latency, [line.quality for line in data.variants], ids="s-")


def _latency(data: ReportData) -> Latency:
    assert data.latency is not None
    return data.latency


def test_speed_is_that_of_decoding_at_the_median(data: ReportData) -> None:
    latency = _latency(data)
    (line,) = (p for p in latency.phases if (p.phase, p.variant) == ("decode", "int4"))
    assert line.items_per_s == pytest.approx(1 / line.summary.p50_s)
    said = " ".join(ET.fromstring(_speed(data, latency)).itertext())
    assert "ONNX int4: 2183 tokens per second, KL 0.0034 nats" in said
    assert "ONNX fp32: 873.4 tokens per second" in said


def test_variants_without_a_rate_or_a_loss_are_not_drawn(data: ReportData) -> None:
    latency = _latency(data)
    others = tuple(p for p in latency.phases if p.phase != "decode")
    assert _speed(data, replace(latency, phases=others)) == ""
    unknown = tuple(replace(p, variant="unknown") for p in latency.phases)
    assert _speed(data, replace(latency, phases=unknown)) == ""


def test_samples_of_another_build_are_told_apart(data: ReportData, tmp_path: Path) -> None:
    assert not _latency(data).same_bundle
    assert "of other files" in render_page(data)
    digest = digest_of_rest(read_manifest(tmp_path / "bundle"))
    times = tmp_path / "own.json"
    times.write_text(render_run(replace(samples(), bundle_digest=digest)), encoding="utf-8")
    store = Store(root=tmp_path / "absent")
    request = ReportRequest(bundle=tmp_path / "bundle", store=store, latency=times)
    own = read_report(request)
    assert _latency(own).same_bundle
    assert "of other files" not in render_page(own)


def test_a_run_is_a_stroke_and_many_are_thinned_out_with_their_ends_kept() -> None:
    few = tuple(0.001 * (1 + i / 100) for i in range(20))
    many = tuple(0.001 * (1 + i / 1000) for i in range(1000))
    for times, expected in ((few, 20), (many, MOST_TICKS)):
        spread = Spread(label="a", samples_s=times, summary=summarize(times))
        root = ET.fromstring(latency_plot("decode", [spread], ids="l-"))
        (path,) = (each for each in root.iter() if each.tag.endswith("path"))
        strokes = [float(x) for x in re.findall(r"M([\d.]+) ", path.get("d", ""))]
        assert len(strokes) == expected
        axis = time_axis([times[0], times[-1]], start=220, end=880)
        assert strokes[0] == pytest.approx(axis(times[0]), abs=0.1)
        assert strokes[-1] == pytest.approx(axis(times[-1]), abs=0.1)
        assert all(220 <= x <= 880 for x in strokes)


def test_the_description_tells_the_numbers() -> None:
    times = (0.001, 0.002, 0.003)
    spread = Spread(label="mlx int4", samples_s=times, summary=summarize(times))
    text = latency_plot("decode", [spread], ids="l-")
    assert "mlx int4: 3 runs, median 2.00 ms, 90 % within 2.80 ms" in text


def test_ticks_of_times_and_rates_are_round_and_named() -> None:
    times = time_axis([0.0004, 0.003, 1.2], start=0, end=100)
    assert {"500 µs", "1 ms", "50 ms", "1 s"} <= {text for _, text in times.ticks}
    rates = rate_axis([30, 48], start=0, end=100)
    assert {"30", "40", "60"} <= {text for _, text in rates.ticks}
