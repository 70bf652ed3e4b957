"""The plot is well-formed, accessible, deterministic, and holds no number but measurements."""

import math
import re
import xml.etree.ElementTree as ET  # our own text, nothing from outside
from itertools import combinations

import pytest
from report_samples import SIZES_MB, measured, variant, whole_build

from fastvlm_compile.report.labels import Box, text_width
from fastvlm_compile.report.variants import variant_rows
from fastvlm_compile.report.variants_plot import variants_plot
from validation.gate_table import format_number
from validation.measurement import Measurement

_SVG = "{http://www.w3.org/2000/svg}"


def _plot(measurements: tuple[Measurement, ...]) -> str:
    return variants_plot("tiny", variant_rows(measurements))


def _classed(root: ET.Element, name: str) -> list[ET.Element]:
    return [each for each in root.iter() if name in each.get("class", "").split()]


def _titles(root: ET.Element) -> list[str]:
    """Of the marks, in the order of the variants; the legend's have none."""
    titles = [mark.find(f"{_SVG}title") for mark in _classed(root, "mark")]
    return [title.text or "" for title in titles if title is not None]


def test_it_is_well_formed_and_tells_what_it_shows_to_those_who_do_not_see_it() -> None:
    root = ET.fromstring(_plot(whole_build()))
    assert root.tag == f"{_SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    title, description = root[0], root[1]
    assert (title.get("id"), description.get("id")) == ("title", "desc")
    assert title.text == "tiny: bytes of each variant against its quality"
    assert "Core ML lut4: 1930000 bytes, KL 0.007 nats." in (description.text or "")


def test_it_draws_one_mark_a_variant_and_panel_in_the_shape_of_its_target() -> None:
    root = ET.fromstring(_plot(whole_build()))
    shapes = {"onnx": "circle", "coreml": "rect", "mlx": "polygon"}
    for target, shape in shapes.items():
        marks = [mark for mark in _classed(root, "mark") if target in mark.get("class", "").split()]
        asked = [acc for (of, _), (_, _, acc) in SIZES_MB.items() if of == target]
        in_both = len(asked) + sum(acc is not None for acc in asked)
        assert len(marks) == in_both + 1  # and the legend's
        assert {mark.tag for mark in marks} == {f"{_SVG}{shape}"}
    names = [label.text for label in _classed(root, "label")]
    assert names[: len(SIZES_MB)] == [name for _, name in SIZES_MB]


def test_no_two_labels_of_a_whole_build_overlap() -> None:
    boxes = []
    for label in _classed(ET.fromstring(_plot(whole_build())), "label"):
        width = text_width(label.text or "", 12) * 0.95
        x, y = float(label.get("x", "")), float(label.get("y", ""))
        anchors = {"start": 0.0, "middle": width / 2, "end": width}
        (shift,) = (by for name, by in anchors.items() if name in label.get("class", "").split())
        boxes.append(Box(left=x - shift, top=y - 9, right=x - shift + width, bottom=y + 3))
    assert len(boxes) > len(SIZES_MB)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert boxes[0].overlaps(boxes[0])


def test_all_its_numbers_are_measurements() -> None:
    measurements = whole_build()
    known = {format_number(each.value) for each in measurements}
    known |= {f"{each.value:.0f}" for each in measurements if each.metric == "size_bytes"}
    titles = _titles(ET.fromstring(_plot(measurements)))
    assert len(titles) >= len(SIZES_MB)
    for title in titles:
        name, _, numbers = title.partition(": ")
        assert name.rpartition(" ")[2] in {variant for _, variant in SIZES_MB}
        for number in re.findall(r"(?<![\w.])\d[\d.e-]*", numbers):
            assert number in known, title


def test_light_and_dark_pages_have_their_own_colours() -> None:
    style = next(each.text for each in ET.fromstring(_plot(whole_build())).iter(f"{_SVG}style"))
    assert style is not None
    light, dark = style.split("@media (prefers-color-scheme:dark){")
    for name in ("paper", "ink", "faint", "onnx", "coreml", "mlx"):
        pattern = rf"\.{name}\{{fill:(#[0-9a-f]{{6}})\}}"
        (bright,), (dim,) = re.findall(pattern, light), re.findall(pattern, dark)
        assert bright != dim
        if name != "paper":
            assert _contrast(bright, "#ffffff") >= 4.5
            assert _contrast(dim, "#0d1117") >= 4.5
    assert _contrast("#d8dee4", "#ffffff") < 4.5


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1, relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_equal_measurements_give_equal_bytes() -> None:
    assert _plot(whole_build()).encode() == _plot(whole_build()).encode()


@pytest.mark.parametrize(
    ("kl", "told"), [(math.nan, "KL nan"), (math.inf, "KL inf"), (-1.0, "KL -1")]
)
def test_a_loss_that_is_none_is_told_and_not_drawn(kl: float, told: str) -> None:
    good = variant("onnx", "fp16", size_bytes=4e6, kl=1e-6)
    root = ET.fromstring(_plot((*good, *variant("onnx", "int4", size_bytes=2e6, kl=kl))))
    assert [label.text for label in _classed(root, "label")] == ["fp16"]
    assert f"Not drawn: onnx int4: {told}" in [each.text for each in root.iter(f"{_SVG}text")]


def test_a_variant_without_bytes_or_without_a_loss_is_told_and_not_drawn() -> None:
    root = ET.fromstring(
        _plot(
            (
                *variant("onnx", "fp16", size_bytes=4e6, kl=1e-6),
                measured("onnx", "int8", "end_to_end", "kl_mean", 0.1),
                measured("coreml", "int8", "files", "size_bytes", 3e6),
                measured("mlx", "int8", "files", "size_bytes", 3e6),
                measured("mlx", "int8", "end_to_end", "kl_mean", None, reason="no <mlx> here"),
            )
        )
    )
    told = [each.text for each in root.iter(f"{_SVG}text")]
    assert "Not drawn: onnx int8: its bytes are not known" in told
    assert "Not drawn: coreml int8: no end-to-end KL" in told
    assert "Not drawn: mlx int8: KL not run (no <mlx> here)" in told


def test_a_long_reason_is_broken_into_lines_that_fit() -> None:
    reason = "because " * 60
    absent = measured("mlx", "int8", "end_to_end", "kl_mean", None, reason=reason)
    size = measured("mlx", "int8", "files", "size_bytes", 3e6)
    root = ET.fromstring(_plot((absent, size)))
    told = [each.text or "" for each in root.iter(f"{_SVG}text")]
    assert sum("because" in line for line in told) > 3
    assert all(text_width(line, 12) < 900 for line in told)


def test_nothing_to_draw_is_said() -> None:
    root = ET.fromstring(_plot(()))
    assert "Nothing was measured that could be drawn." in [
        each.text for each in root.iter(f"{_SVG}text")
    ]
    assert _classed(root, "label") == []


def test_a_loss_of_zero_is_drawn_on_the_lowest_line() -> None:
    root = ET.fromstring(_plot(variant("onnx", "fp32", size_bytes=4e6, kl=0.0)))
    assert _titles(root) == ["ONNX fp32: 4000000 bytes, KL 0 nats"]


def test_the_quantized_reference_is_no_variant_to_draw() -> None:
    reference = measured("reference", "int4", "end_to_end", "kl_mean", 0.1)
    good = variant("onnx", "fp16", size_bytes=4e6, kl=1e-6)
    assert _plot((*good, reference)) == _plot(good)


def test_task_accuracy_has_a_panel_only_where_questions_were_asked() -> None:
    asked = _plot(variant("onnx", "int4", size_bytes=2e6, kl=0.01, accuracy=0.98))
    assert "Task accuracy" in asked
    assert "task accuracy 0.98" in asked
    silent = _plot(variant("onnx", "int4", size_bytes=2e6, kl=0.01))
    assert "ask accuracy" not in silent


def test_an_accuracy_of_nan_is_not_drawn_as_one() -> None:
    nan = variant("onnx", "int4", size_bytes=2e6, kl=0.01, accuracy=math.nan)
    good = variant("mlx", "int4", size_bytes=3e6, kl=0.01, accuracy=0.9)
    root = ET.fromstring(_plot((*nan, *good)))
    assert [label.text for label in _classed(root, "label")] == ["int4"] * 3


def test_numbers_of_core_ml_packages_say_who_computed_them() -> None:
    told = "ML Program parity, not executed by Core ML"
    assert told in _plot(variant("coreml", "lut4", size_bytes=2e6, kl=0.01))
    assert told not in _plot(variant("mlx", "int4", size_bytes=2e6, kl=0.01))
