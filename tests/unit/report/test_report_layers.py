"""Errors behind every layer on the page: every number is there, and every curve can be followed."""

import json
import math
import re
import xml.etree.ElementTree as ET  # our own text, nothing from outside
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from page_reader import Element, parse
from report_bundle import curves, make_bundle, write_bundle

from fastvlm_compile.cli import run
from fastvlm_compile.report.layer_plot import Series, layer_plot
from fastvlm_compile.report.page import render_page
from fastvlm_compile.report.page_reading import ReportRequest, read_report
from fastvlm_compile.report.plot_style import NUM_SERIES
from fastvlm_compile.store import Store
from validation.layer_curves import LayerCurve, LayerError

Capture = pytest.CaptureFixture[str]


def _section(folder: Path, layers: tuple[LayerCurve, ...]) -> Element:
    bundle = make_bundle(folder / "bundle", layers=layers)
    data = read_report(ReportRequest(bundle=bundle, store=Store(root=folder / "absent")))
    sections = parse(render_page(data)).all("section")
    return next(each for each in sections if each.attributes["id"] == "layers")


def _classed(root: ET.Element, name: str) -> list[ET.Element]:
    return [each for each in root.iter() if name in each.get("class", "").split()]


def _with_errors(curve: LayerCurve, *errors: float) -> LayerCurve:
    layers = (
        LayerError(part="decoder", name=f"layer {i}", relative_l2=error)
        for i, error in enumerate(errors)
    )
    return replace(curve, layers=tuple(layers))


def _series(*errors: float, label: str = "int4", index: int = 0) -> Series:
    return Series(label=label, errors=errors, index=index)


def test_every_number_stands_in_a_table_with_the_layer_as_its_heading(tmp_path: Path) -> None:
    section = _section(tmp_path, curves())
    tower, decoder = section.all("table")
    for table, rows in ((tower, 5), (decoder, 24)):
        assert [cell.text for cell in table.all("thead")[0].all("th")][1:] == ["int4", "int4-mlx"]
        lines = table.all("tbody")[0].all("tr")
        assert len(lines) == rows
        assert all(line.children[0].attributes["scope"] == "row" for line in lines)
    cells = [cell.text for cell in decoder.all("tbody")[0].all("tr")[2].all("th", "td")]
    assert cells == ["layer 2", "0.012", "0.0117"]


def test_case_image_and_executor_are_named(tmp_path: Path) -> None:
    named = tuple(
        replace(each, case="photo-cat", image="cat", executor="torch 2") for each in curves()
    )
    text = _section(tmp_path, named).text
    assert "Golden case photo-cat, image cat. Executor: torch 2." in text


def test_what_has_no_error_is_told_instead_of_drawn(tmp_path: Path) -> None:
    section = _section(tmp_path, curves())
    tower, decoder = section.all("svg")
    drawn = [each for each in tower.all("path") if "curve" in each.attributes["class"]]
    assert len(drawn) == 1
    assert len([e for e in decoder.all("path") if "curve" in e.attributes["class"]]) == 2
    assert "No error but rounding in the vision tower: int4-mlx." in section.text


def test_equal_curves_are_one_that_is_named_after_all(tmp_path: Path) -> None:
    first, _ = curves()
    names = ("int8", "int4-fast", "mixed", "int4-fast-mlx")
    same = tuple(replace(first, variant=name) for name in names)
    section = _section(tmp_path, (*same, replace(curves()[1], variant="lut4")))
    tower, decoder = section.all("svg")
    for plot, expected in ((tower, {"int8 and 3 more"}), (decoder, {"int8 and 3 more", "lut4"})):
        assert {each.text for each in plot.all("text")} & {"lut4", "int8 and 3 more", *names} == (
            expected
        )
    assert "for they are equal there: int8, int4-fast, mixed, int4-fast-mlx." in section.text
    pair = _section(tmp_path / "pair", (same[0], same[2]))
    assert "int8, mixed" in [each.text for each in pair.all("svg")[0].all("text")]


def test_a_quantization_has_one_colour_in_both_plots(tmp_path: Path) -> None:
    first, second = curves()
    half = replace(first, layers=tuple(e for e in first.layers if e.part == "decoder"))
    tower = tuple(replace(each, relative_l2=0.5 * each.relative_l2) for each in first.layers)
    plots = _section(tmp_path, (half, replace(second, layers=tower))).all("svg")
    classes = [
        {each.text: each.attributes["class"] for each in plot.all("text")}["int4-mlx"]
        for plot in plots
    ]
    assert classes == ["s1", "s1"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_said_and_breaks_the_curve(tmp_path: Path, bad: float) -> None:
    curve, _ = curves()
    section = _section(tmp_path, (_with_errors(curve, 0.1, 0.2, bad, 0.2, 0.3),))
    assert "int4 has no finite error behind layer 2." in section.text
    (path,) = (e for e in section.all("path") if "curve" in e.attributes["class"])
    assert path.attributes["d"].count("M") == 2


def test_nothing_finite_gives_a_table_and_no_plot(tmp_path: Path) -> None:
    curve, _ = curves()
    section = _section(tmp_path, (_with_errors(curve, math.nan, math.nan),))
    assert not section.all("svg")
    assert [cell.text for cell in section.all("td")] == ["nan", "nan"]


def test_curves_rise_with_their_errors_and_stay_in_the_frame() -> None:
    rising = _series(1e-9, 1e-3, 1e-2, 0.5, 3.0)
    root = ET.fromstring(layer_plot("a", [f"layer {i}" for i in range(5)], [rising], ids="p-"))
    marks = [each for each in _classed(root, "s0") if each.tag.endswith("circle")]
    heights = [float(mark.get("cy", "")) for mark in marks]
    assert heights == sorted(heights, reverse=True)
    assert 34 <= heights[-1] < heights[0] <= 314
    titles = [mark[0].text for mark in marks]
    assert titles[1] == "int4, layer 1: 0.001"


def test_every_curve_has_a_colour_of_its_theme_and_its_own_dashes() -> None:
    together = [_series(0.1, 0.2, label=f"v{i}", index=i) for i in range(NUM_SERIES + 1)]
    root = ET.fromstring(layer_plot("a", ["layer 0", "layer 1"], together, ids="p-"))
    (style,) = (each.text or "" for each in root.iter() if each.tag.endswith("style"))
    light, dark = style.split("@media (prefers-color-scheme:dark){")
    looks = set()
    for index in range(NUM_SERIES):
        look = rf"\.curve\.s{index}\{{fill:none;stroke:(#\w+);.*dasharray:(.*)\}}"
        (bright,), (dim,) = re.findall(look, light), re.findall(look, dark)
        assert bright[0] != dim[0]
        assert f".s{index}{{fill:{bright[0]}}}" in light
        looks.add(bright)
    assert len(looks) == NUM_SERIES
    drawn = [each.get("class", "").split()[1] for each in _classed(root, "curve")]
    assert set(drawn) == {f"s{index}" for index in range(NUM_SERIES)}


def test_labels_of_curves_that_end_together_do_not_overlap() -> None:
    count = 14
    together = [_series(0.1, 0.2 + i / 1e4, label=f"v{i}", index=i) for i in range(count)]
    root = ET.fromstring(layer_plot("a", ["layer 0", "layer 1"], together, ids="p-"))
    labels = [e for e in root.iter() if e.tag.endswith("text") and (e.text or "")[0] == "v"]
    heights = sorted(float(label.get("y", "")) for label in labels)
    assert len(labels) == count
    assert all(low + 15 <= high for low, high in pairwise(heights))
    assert heights[0] >= 0
    assert heights[-1] <= 340
    # Higher errors stand higher.
    assert [label.text for label in labels] == [f"v{i}" for i in reversed(range(count))]


def test_the_description_tells_ends_and_worst() -> None:
    text = layer_plot("a", ["stage 1", "stage 2", "output"], [_series(0.1, 0.5, 0.2)], ids="p-")
    assert "int4: 0.1 behind stage 1, 0.2 behind output, at most 0.5, behind stage 2." in text


def test_a_single_layer_is_a_mark_without_a_line() -> None:
    root = ET.fromstring(layer_plot("a", ["layer 0"], [_series(0.1)], ids="p-"))
    assert not _classed(root, "curve")
    assert len([each for each in root.iter() if each.tag.endswith("circle")]) == 1


def test_the_json_has_the_curves_and_keeps_the_schema(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle(tmp_path / "bundle", layers=curves())
    assert run(["report", str(bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    schema = files("fastvlm_compile.report").joinpath("schema.json").read_text(encoding="utf-8")
    Draft202012Validator(json.loads(schema)).validate(document)
    assert [each["variant"] for each in document["layers"]] == ["int4", "int4-mlx"]
    assert document["layers"][0]["layers"][5] == {
        "part": "decoder", "name": "layer 0", "relative_l2": 0.004
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.write_text(path.read_text() + "\n"), "not the file that the build"),
    ],
)
def test_damaged_curves_are_told(
    damage: object, said: str, tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "bundle", layers=curves())
    assert callable(damage)
    damage(bundle / "reports/layers.json")
    assert run(["report", str(bundle), "--out", str(tmp_path / "page.html")]) == 2
    assert said in capsys.readouterr().err


def test_curves_that_the_manifest_does_not_know_are_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "bundle", layers=curves())
    other = tmp_path / "other"
    write_bundle(other, (bundle / "reports/parity.json").read_bytes())
    (other / "reports/layers.json").write_bytes((bundle / "reports/layers.json").read_bytes())
    assert run(["report", str(other), "--out", str(tmp_path / "page.html")]) == 2
    assert "not the file that the build wrote" in capsys.readouterr().err
