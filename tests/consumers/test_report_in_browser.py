"""The report in a real browser: nothing is loaded, nothing sticks out, the filter filters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastvlm_compile.cli import run
from validation.consumers.browser import CHROMIUMS, find_chromium
from validation.consumers.driving import drive
from validation.consumers.outcome import Environment

pytestmark = pytest.mark.consumers

DRIVER = Path(__file__).parent / "open_report.mjs"
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module", params=["passing", "failing"])
def seen(
    request: pytest.FixtureRequest,
    tiny_bundle: Path,
    environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What the browser says of the report, its screenshots in `folder`."""
    chromium = find_chromium()
    if chromium is None:
        pytest.fail(f"no Chromium is installed; looked for {', '.join(CHROMIUMS)}")
    folder = tmp_path_factory.mktemp(request.param)
    options = []
    if request.param == "failing":
        recipe = folder / "impossible.yaml"
        text = (RECIPES / "tiny.yaml").read_text(encoding="utf-8")
        assert "max: 1.0e-6\n" in text
        recipe.write_text(text.replace("max: 1.0e-6\n", "max: 0\n", 1), encoding="utf-8")
        options = ["--gates", str(recipe)]
    page = folder / "report.html"
    assert run(["report", str(tiny_bundle), "--out", str(page), *options]) == 0
    command = ["node", DRIVER, environment.node_modules, chromium, page, folder]
    return {**drive(command, timeout_s=300), "folder": folder, "verdict": request.param}


def test_the_console_is_silent_and_nothing_is_asked_for(seen: dict[str, Any]) -> None:
    assert seen["faults"] == []


def test_nothing_sticks_out_of_a_phone_or_of_a_desk(seen: dict[str, Any]) -> None:
    assert len(seen["views"]) == 4
    for view in seen["views"]:
        assert view["offenders"] == []
        assert view["scrollWidth"] == view["width"]


def test_dark_and_light_are_what_was_asked_for(seen: dict[str, Any]) -> None:
    for view in seen["views"]:
        with Image.open(seen["folder"] / f"{view['scheme']}-{view['width']}.png") as image:
            pixels = np.asarray(image.convert("L"), np.float32)
        assert pixels.shape[1] == view["width"]
        assert (np.median(pixels) < 64) == (view["scheme"] == "dark")
        assert pixels.std() > 5  # something is written there


def test_the_filter_leaves_what_was_chosen(seen: dict[str, Any]) -> None:
    found = seen["filtered"]
    assert found["all"]["rows"] > found["target"]["rows"] > 0
    assert set(found["target"]["groups"]) == {"onnx"}
    assert found["target"]["told"] == f"{found['target']['rows']} gates are shown"
    assert (found["status"]["rows"] == 0) == (seen["verdict"] == "passing")
    assert found["open"]


def test_a_screen_reader_can_name_everything(seen: dict[str, Any]) -> None:
    assert seen["unnamed"] == []


def test_without_scripts_all_gates_are_there_and_no_dead_controls(seen: dict[str, Any]) -> None:
    assert seen["withoutScript"]["groups"] == len(seen["filtered"]["all"]["groups"])
    assert not seen["withoutScript"]["formIsShown"]
