"""What the consumers of graphs and packages say where they cannot run."""

import json
from pathlib import Path

import pytest

from validation.consumers import (
    onnxruntime_genai,
    plain_onnxruntime,
    transformers_fast_vlm,
)
from validation.consumers.onnx_expected import graph_paths, onnx_files
from validation.consumers.outcome import Environment

FILES = {
    "fp32": ["vision_encoder", "embed_tokens", "decoder_model_merged"],
    "int4": ["vision_encoder_quantized", "embed_tokens_q4", "decoder_model_merged_q4"],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A manifest, a config for genai and an example; no weights."""
    folder = tmp_path / "bundle"
    (folder / "example").mkdir(parents=True)
    (folder / "example" / "answer.py").write_text("")
    variants = [
        {
            "target": "onnx",
            "variant": variant,
            "files": [f"onnx/{stem}.onnx" for stem in stems] + [f"onnx/{stems[1]}.onnx_data"],
        }
        for variant, stems in FILES.items()
    ]
    variants.append({"target": "reference", "variant": "int4", "files": []})
    (folder / "manifest.json").write_text(json.dumps({"variants": variants}))
    model = {
        "vision": {"filename": "onnx/vision.onnx"},
        "embedding": {"filename": "onnx/embedding.onnx"},
        "decoder": {"filename": "onnx/decoder_model_merged.onnx"},
    }
    (folder / "genai_config.json").write_text(json.dumps({"model": model}))
    return folder


@pytest.fixture
def nothing(tmp_path: Path) -> Environment:
    return Environment(root=tmp_path / "nothing")


@pytest.mark.parametrize("consumer", [onnxruntime_genai, plain_onnxruntime])
def test_an_environment_that_is_missing_is_told_for_each_variant(
    consumer, bundle: Path, nothing: Environment
) -> None:
    outcomes = consumer.check(bundle, nothing)
    assert [each.variant for each in outcomes] == ["onnx.fp32", "onnx.int4"]
    assert {each.status for each in outcomes} == {"not_run"}
    assert all("make consumers-env" in each.detail for each in outcomes)


def test_a_bundle_without_the_files_of_a_consumer_says_so(
    bundle: Path, nothing: Environment
) -> None:
    (bundle / "genai_config.json").unlink()
    (bundle / "example" / "answer.py").unlink()
    assert "genai_config.json" in onnxruntime_genai.check(bundle, nothing)[0].detail
    assert "example/answer.py" in plain_onnxruntime.check(bundle, nothing)[0].detail
    (outcome,) = transformers_fast_vlm.check(bundle, nothing)
    assert (outcome.status, outcome.variant) == ("not_run", "torch.fp32")
    assert "no checkpoint" in outcome.detail
    (bundle / "torch").mkdir()
    (bundle / "torch" / "config.json").write_text("{}")
    (outcome,) = transformers_fast_vlm.check(bundle, nothing)
    assert "make consumers-env" in outcome.detail


def test_the_graphs_of_a_variant_are_found_by_the_manifest(bundle: Path) -> None:
    files = onnx_files(bundle)
    assert list(files) == ["fp32", "int4"]
    paths = graph_paths(bundle, files["int4"])
    assert paths.embed_tokens == bundle / "onnx" / "embed_tokens_q4.onnx"
    assert paths.vision_encoder == bundle / "onnx" / "vision_encoder_quantized.onnx"
    assert onnxruntime_genai.genai_graphs(bundle, files["int4"]) == {
        "vision": "onnx/vision_quantized.onnx",
        "embedding": "onnx/embedding_q4.onnx",
        "decoder": "onnx/decoder_model_merged_q4.onnx",
    }
    fp32 = onnxruntime_genai.genai_graphs(bundle, files["fp32"])
    assert fp32 == onnxruntime_genai.named_graphs(bundle)
