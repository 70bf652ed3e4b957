"""transformers.js in Node loads the bundle from disk and answers as the reference does."""

import json
from pathlib import Path

import pytest
from split_bundle import split_bundle

from validation.consumers.driving import DRIVERS, DriverError, drive
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.outcome import Environment
from validation.consumers.transformers_js import check

pytestmark = pytest.mark.consumers

FOUR_BITS = {"vision_encoder": "q8", "embed_tokens": "q4", "decoder_model_merged": "q4"}


@pytest.fixture(scope="module")
def cases(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ConsumerCases:
    return write_cases(tiny_bundle, tmp_path_factory.mktemp("cases"), num_scenes=9)


def ask(bundle: Path, cases: ConsumerCases, environment: Environment, dtype: str) -> list[str]:
    """The answers' texts, in the order of the cases."""
    driver = DRIVERS / "transformers_js.mjs"
    command = ("node", driver, environment.node_modules, bundle, cases.file, dtype)
    texts = drive(command, timeout_s=120)["texts"]
    assert isinstance(texts, dict)
    return [texts[case.id] for case in cases.cases]


def test_every_variant_with_a_dtype_agrees(tiny_bundle: Path, environment: Environment) -> None:
    found = {row.variant: row for row in check(tiny_bundle, environment)}
    expected = {f"onnx.{name}": "agreed" for name in ("fp32", "fp16", "int8", "int4")}
    expected |= {f"onnx.{name}": "not_supported" for name in ("int4-fast", "mixed")}
    assert {name: row.status for name, row in found.items()} == expected, found


def test_without_a_dtype_it_loads_the_file_of_fewest_bits_of_each_graph(
    tiny_bundle: Path, cases: ConsumerCases, environment: Environment
) -> None:
    config = json.loads((tiny_bundle / "config.json").read_text())
    assert config["transformers.js_config"]["dtype"] == FOUR_BITS
    default = ask(tiny_bundle, cases, environment, "default")
    assert default == ask(tiny_bundle, cases, environment, json.dumps(FOUR_BITS))


def test_graphs_in_several_files_of_weights_answer_the_same(
    tiny_bundle: Path, cases: ConsumerCases, environment: Environment, tmp_path: Path
) -> None:
    split = split_bundle(tiny_bundle, tmp_path)
    chunks = json.loads((split / "config.json").read_text())["transformers.js_config"]
    assert min(chunks["use_external_data_format"].values()) > 2
    answers = ask(split, cases, environment, "fp32")
    assert answers == [case.answer for case in cases.cases]
    (split / "onnx" / "decoder_model_merged.onnx_data_1").unlink()
    with pytest.raises(DriverError, match=r"decoder_model_merged\.onnx_data_1"):
        ask(split, cases, environment, "fp32")


def test_the_graphs_of_the_half_billion_answer_from_several_files_of_weights(
    half_billion_bundle: Path, environment: Environment, tmp_path: Path
) -> None:
    """Both variants; float32 in files of at most 400 MB, but for the head's matrix alone."""
    split = split_bundle(half_billion_bundle, tmp_path, chunk_bytes=400_000_000, share=False)
    chunks = json.loads((split / "config.json").read_text())["transformers.js_config"]
    assert chunks["use_external_data_format"]["decoder_model_merged.onnx"] >= 4
    assert chunks["use_external_data_format"]["vision_encoder.onnx"] == 2
    found = {row.variant: row for row in check(split, environment)}
    statuses = {name: row.status for name, row in found.items()}
    assert statuses == {"onnx.fp32": "agreed", "onnx.int4": "agreed"}, found


def test_a_missing_environment_is_told_and_not_a_verdict(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = check(tiny_bundle, Environment(root=tmp_path))
    assert {row.status for row in rows} == {"not_run", "not_supported"}
    assert "make consumers-env" in rows[0].detail


def test_a_bundle_with_other_weights_disagrees(
    tiny_bundle: Path, environment: Environment, tmp_path: Path
) -> None:
    split = split_bundle(tiny_bundle, tmp_path)
    data = split / "onnx" / "decoder_model_merged.onnx_data"
    data.write_bytes(bytes(data.stat().st_size))
    found = {row.variant: row.status for row in check(split, environment)}
    assert found["onnx.fp32"] == "disagreed"
