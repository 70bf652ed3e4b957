"""The demo's page, in a real browser: what stands on screen is the reference's answer."""

from pathlib import Path

import pytest
from split_bundle import split_bundle

from validation.consumers.browser import check, find_chromium, use_page, word_agreement
from validation.consumers.driving import DriverError
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.outcome import Environment

pytestmark = pytest.mark.consumers


@pytest.fixture(scope="module", autouse=True)
def chromium() -> None:
    if find_chromium() is None:
        pytest.fail("no Chromium: install Debian's chromium or chromium-headless-shell")


@pytest.fixture(scope="module")
def cases(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ConsumerCases:
    return write_cases(tiny_bundle, tmp_path_factory.mktemp("cases"), num_scenes=6)


@pytest.mark.parametrize("variant", ["fp32", "q4"])
def test_the_answer_on_screen_is_the_references(
    variant: str,
    tiny_bundle: Path,
    cases: ConsumerCases,
    environment: Environment,
    tmp_path: Path,
) -> None:
    shot = tmp_path / "page.png"
    found = use_page(tiny_bundle, cases, environment, variant=variant, screenshot=shot)
    assert found["faults"] == []
    assert shot.stat().st_size > 0
    texts, figures = found["texts"], found["figures"]
    assert isinstance(texts, dict)
    assert isinstance(figures, dict)
    limit = cases.contract.max_new_tokens
    for case in cases.cases:
        if case.image:
            assert word_agreement(case, texts[case.id], limit) == 1.0, texts[case.id]
            assert "Time to first token" in figures[case.id]
            assert "tokens/s" in figures[case.id]


def test_several_files_of_weights_and_a_shared_one_load_in_the_browser(
    tiny_bundle: Path, cases: ConsumerCases, environment: Environment, tmp_path: Path
) -> None:
    split = split_bundle(tiny_bundle, tmp_path)
    found = use_page(split, cases, environment, variant="fp32")
    assert found["faults"] == []
    texts = found["texts"]
    assert isinstance(texts, dict)
    assert texts["scene-0"] == next(case.answer for case in cases.cases if case.id == "scene-0")


def test_a_graph_that_cannot_be_loaded_is_told_on_the_page(
    tiny_bundle: Path, cases: ConsumerCases, environment: Environment, tmp_path: Path
) -> None:
    split = split_bundle(tiny_bundle, tmp_path)
    (split / "onnx" / "decoder_model_merged.onnx").write_bytes(b"no graph")
    with pytest.raises(DriverError, match="ERROR_CODE"):
        use_page(split, cases, environment, variant="fp32")


def test_the_check_tells_each_variant(tiny_bundle: Path, environment: Environment) -> None:
    found = {row.variant: (row.status, row.detail) for row in check(tiny_bundle, environment)}
    named = [found[f"onnx.{name}"][0] for name in ("fp32", "fp16", "int8", "int4")]
    assert named == ["agreed"] * 4, found
    assert found["onnx.mixed"][0] == "not_supported"
