"""The page is whole, says the verdict first, can be read without eyes, and lets nothing in."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from page_reader import Element, parse
from report_bundle import GATES, HOSTILE, curves, make_bundle, samples

from fastvlm_compile.report.page import render_page
from fastvlm_compile.report.page_data import ReportData, StageLine, Stages
from fastvlm_compile.report.page_reading import ReportRequest, read_report
from fastvlm_compile.store import Store
from validation.latency.samples import render_run

NO_STORE = Store(root=Path("absent"))


def _data(folder: Path, *, name: str = "sample", words: str = "plain words") -> ReportData:
    """With everything that a page can tell."""
    layers = curves(words=words)
    bundle = make_bundle(folder / "bundle", name=name, layers=layers, words=words)
    times = folder / "latency.json"
    times.write_text(render_run(samples(bundle=name, words=words)), encoding="utf-8")
    lines = (
        StageLine(
            stage="onnx.decoder",
            duration_s=3.5,
            peak_memory_bytes=10**8,
            size_bytes=77,
            from_store=True,
        ),
        StageLine(
            stage="gone", duration_s=None, peak_memory_bytes=None, size_bytes=None, from_store=None
        ),
    )
    stages = Stages(lines=lines, reason="")
    data = read_report(ReportRequest(bundle=bundle, store=NO_STORE, latency=times))
    return replace(data, stages=stages)


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    return _data(tmp_path)


@pytest.fixture
def page(data: ReportData) -> Element:
    return parse(render_page(data))


def test_the_verdict_comes_first_and_stands_in_the_title(page: Element) -> None:
    (heading,) = page.all("h1")
    assert heading.text == "Report of sample"
    (header,) = page.all("header")
    assert "Passed: all 2 gates that were judged hold" in header.text
    assert "1 more were not run" in header.text
    assert page.all("title")[0].text == "sample: passed: all 2 gates that were judged hold"
    assert "asked no questions" in page.text  # why it was not run


def test_headings_and_landmarks_lead_through_the_page(page: Element) -> None:
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1, landmark
    assert page.all("html")[0].attributes["lang"] == "en"
    ids = {
        element.attributes["id"]: element for element in page.all() if "id" in element.attributes
    }
    skip = next(link for link in page.all("a") if "skip" in link.attributes.get("class", ""))
    assert ids[skip.attributes["href"].removeprefix("#")].name == "main"
    for link in page.all("nav")[0].all("a"):
        section = ids[link.attributes["href"].removeprefix("#")]
        assert section.name == "section"
        assert ids[section.attributes["aria-labelledby"]].name == "h2"
    assert len(page.all("section")) == len(page.all("h2")) == 10


def test_every_id_is_unique_and_everything_that_is_referred_to_is_there(page: Element) -> None:
    ids = [each.attributes["id"] for each in page.all() if "id" in each.attributes]
    assert len(set(ids)) == len(ids)
    for each in page.all():
        for name in ("aria-labelledby", "for"):
            assert set(each.attributes.get(name, "").split()) <= set(ids)


def test_every_table_has_a_caption_and_headings_with_a_scope(page: Element) -> None:
    tables = page.all("table")
    assert len(tables) >= 8
    for each in tables:
        (caption,) = each.all("caption")
        assert caption.text
        scopes = [cell.attributes.get("scope", "") for cell in each.all("th")]
        assert set(scopes) <= {"col", "row", "rowgroup"}
        num_columns = scopes.count("col")
        for row in each.all("tr"):
            cells = row.all("th", "td")
            assert sum(int(cell.attributes.get("colspan", "1")) for cell in cells) == num_columns
            assert cells[0].name == "th"


def test_what_scrolls_can_be_reached_by_the_keyboard(page: Element) -> None:
    scrolling = [e for e in page.all("div") if "scroll" in e.attributes.get("class", "").split()]
    assert len(scrolling) >= len(page.all("table"))
    assert all(e.attributes["tabindex"] == "0" and e.attributes["aria-label"] for e in scrolling)
    assert all("tabindex" in each.attributes for each in page.all("pre"))


def test_every_plot_has_a_title_and_a_description(page: Element) -> None:
    plots = page.all("svg")
    assert len(plots) == 2 + 2 + 3  # bytes, speed, both halves, and the three phases
    for plot in plots:
        assert plot.attributes["role"] == "img"
        title, description = plot.children[:2]
        assert (title.name, description.name) == ("title", "desc")
        labelled = plot.attributes["aria-labelledby"].split()
        assert labelled == [title.attributes["id"], description.attributes["id"]]
        assert len(description.text) > 40


def test_nothing_is_loaded_from_anywhere(page: Element, data: ReportData) -> None:
    for element in page.all():
        assert element.name not in ("link", "iframe", "object", "embed", "base", "img", "image")
        assert not {"src", "srcset", "data", "action", "xlink:href"} & set(element.attributes)
        assert element.attributes.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(", render_page(data))
    policy = page.all("meta")[1].attributes["content"]
    assert policy.startswith("default-src 'none'; ")
    assert len(page.all("script")) == 1


def test_names_that_are_markup_stay_text(tmp_path: Path) -> None:
    hostile = parse(render_page(_data(tmp_path / "hostile", name=HOSTILE, words=HOSTILE)))
    plain = parse(render_page(_data(tmp_path / "plain")))
    assert [each.name for each in hostile.all()] == [each.name for each in plain.all()]
    for one, other in zip(hostile.all(), plain.all(), strict=True):
        assert set(one.attributes) == set(other.attributes)
    assert hostile.all("h1")[0].text == f"Report of {HOSTILE}"
    assert hostile.text.count(HOSTILE) > 8


def test_a_hostile_name_cannot_leave_an_attribute(data: ReportData) -> None:
    row = replace(data.gates[0], target='a" onclick="x', variant="<b>", why="</td><script>")
    page = parse(render_page(replace(data, gates=(row,))))
    (group,) = [d for d in page.all("details") if d.attributes.get("class") == "gates"]
    assert group.attributes["data-target"] == 'a" onclick="x'
    assert not page.all("b")
    assert len(page.all("script")) == 1


def test_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    first = render_page(_data(tmp_path / "a"))
    assert render_page(_data(tmp_path / "b")) == first


def test_every_gate_tells_value_threshold_margin_reason_and_executor(page: Element) -> None:
    groups = [each for each in page.all("details") if each.attributes.get("class") == "gates"]
    targets = [(g.attributes["data-target"], g.attributes["data-variant"]) for g in groups]
    assert targets == [(gate.target, gate.variant) for gate in GATES]
    row = groups[0].all("tbody")[0].all("tr")[0]
    assert row.attributes == {"data-status": "passed"}
    cells = [cell.text for cell in row.all("th", "td")]
    assert cells == [
        "decoder", "kl_mean", "✓ passed", "1.9e-13", "≤ 1e-06", "1e-06", "a", "-", "onnxruntime 1"
    ]  # fmt: skip
    form = page.all("form")[0]
    assert "hidden" in form.attributes  # until the script shows it


def test_a_failed_gate_is_told_below_the_verdict_with_what_would_have_passed(
    tmp_path: Path,
) -> None:
    gates = (replace(GATES[0], max=1e-20), *GATES[1:])
    bundle = make_bundle(tmp_path / "bundle", gates=gates)
    page = parse(render_page(read_report(ReportRequest(bundle=bundle, store=NO_STORE))))
    assert "Failed: 1 of 2 gates are missed" in page.all("header")[0].text
    first = page.all("section")[0]
    assert first.attributes["id"] == "failed"
    cells = [cell.text for cell in first.all("tbody")[0].all("th", "td")]
    assert cells[0] == "onnx.fp32.decoder"
    assert "1.91e-13" in cells[6] or "1.9e-13" in cells[6]


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    page = parse(render_page(read_report(ReportRequest(bundle=bundle, store=NO_STORE))))
    anchors = [each.attributes["id"] for each in page.all("section")]
    assert not {"latency", "speed", "failed", "layers"} & set(anchors)
    assert "not recorded: the store here knows no build of it" in page.text
