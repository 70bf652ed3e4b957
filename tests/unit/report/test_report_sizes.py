"""What is weighed is what a variant consists of, each file once."""

from pathlib import Path

import pytest

from fastvlm_compile.plan import WEIGHTS
from fastvlm_compile.recipe import CoreMLLanguage, CoreMLTarget, MlxTarget, OnnxTarget, Targets
from fastvlm_compile.report.sizes import measure_sizes, variant_files
from fastvlm_compile.verdict import Artifact
from fastvlm_compile.weight_count import num_weights
from reference.checkpoint.tensors import open_checkpoint

CHECKPOINT = Path(__file__).parents[3] / "recipes/tiny-checkpoint"
LANGUAGE = CoreMLLanguage(prefill_chunk=32, max_chunk_mb=1000)
FILES = {
    "onnx.vision_encoder/vision_encoder.onnx": 100,
    "onnx.embed_tokens/embed_tokens.onnx": 20,
    "onnx.decoder_model_merged/decoder_model_merged.onnx": 300,
    "onnx.vision_encoder.int8/vision_encoder_quantized.onnx": 30,
    "onnx.vision_encoder.int8/vision_encoder_int8.onnx": 30,
    "onnx.language.int4/embed_tokens_q4.onnx": 5,
    "onnx.language.int4/decoder_model_merged_q4.onnx": 7,
    "onnx.language.int4/decoder_model_merged_q4.onnx_data": 70,
    "onnx.language.int4-fast/decoder_model_merged_q4f.onnx": 1000,
    "coreml.vision.float16/fastvithd.mlpackage/Data/weights/weight.bin": 40,
    "coreml.projector.float16/projector.mlpackage/Manifest.json": 4,
    "coreml.embedding.float16/embedding.safetensors": 8,
    "coreml.decoder.float16/language.json": 2,
    "mlx.int4/model.safetensors": 60,
    "mlx.int4/config.json": 6,
}


def _artifacts(folder: Path) -> dict[str, Artifact]:
    for name, size in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    found = {path.name: Artifact(folder=path, digest="") for path in folder.iterdir()}
    return {WEIGHTS: Artifact(folder=CHECKPOINT, digest=""), **found}


def _targets(language: CoreMLLanguage | None = LANGUAGE) -> Targets:
    return Targets(
        onnx=OnnxTarget(variants=("fp32", "int4"), logits="last", opset=21),
        coreml=CoreMLTarget(precisions=("float16",), ship=(), language=language),
        mlx=MlxTarget(variants=("int4",)),
    )


def test_each_variant_is_weighed_with_all_its_files_shipped_or_not(tmp_path: Path) -> None:
    sizes = {
        (each.target, each.variant): each.value
        for each in measure_sizes(_targets(), _artifacts(tmp_path))
        if each.metric == "size_bytes"
    }
    tower = next(size for name, size in FILES.items() if name.startswith("onnx.vision_encoder.i"))
    assert sizes == {
        ("onnx", "fp32"): 420.0,
        ("onnx", "int4"): tower + 82.0,
        ("coreml", "float16"): 54.0,
        ("mlx", "int4"): 66.0,
    }


def test_bits_per_weight_are_these_bytes_over_the_models_weights(tmp_path: Path) -> None:
    measured = measure_sizes(_targets(), _artifacts(tmp_path))
    values = {(each.target, each.metric): each.value for each in measured if each.target == "mlx"}
    count = num_weights(open_checkpoint(CHECKPOINT), _targets(), "mlx")
    assert values["mlx", "bits_per_weight"] == pytest.approx(8 * 66 / count)
    assert {each.component for each in measured} == {"files"}
    assert {each.executor for each in measured} == {""}


def test_a_tower_alone_counts_its_own_weights_only(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(CHECKPOINT)
    whole, alone = (num_weights(checkpoint, _targets(each), "coreml") for each in (LANGUAGE, None))
    assert 0 < alone < whole
    assert num_weights(checkpoint, _targets(None), "onnx") == whole
    files = variant_files(_targets(None), _artifacts(tmp_path), "coreml", "float16")
    assert [path.name for path in files] == ["weight.bin"]


def test_a_variant_without_files_is_our_mistake(tmp_path: Path) -> None:
    artifacts = _artifacts(tmp_path)
    for path in (tmp_path / "mlx.int4").iterdir():
        path.unlink()
    with pytest.raises(AssertionError, match=r"nothing was built for mlx\.int4"):
        variant_files(_targets(), artifacts, "mlx", "int4")
