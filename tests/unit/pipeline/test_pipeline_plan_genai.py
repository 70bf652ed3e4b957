"""`targets.onnx.genai`: one stage more, over the graphs of every variant."""

from pathlib import Path

import pytest

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.plan import ONNX_GENAI, make_plan
from fastvlm_compile.plan_variants import onnx_genai_graphs
from fastvlm_compile.recipe_file import load_recipe

RECIPE = """\
schema: 1
name: small
checkpoint: {{path: somewhere}}
image: {{size: 128, fit: pad, position: before}}
context_length: 256
goldens: {{scenes: 1, photographs: 0, prompts: [Describe], max_new_tokens: 4, task_questions: 0}}
targets:
  onnx: {{variants: [fp32, fp16], logits: last, opset: 21{genai}}}
gates: []
"""


def recipe_file(folder: Path, genai: str = "") -> Path:
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(genai=genai))
    return file


def test_the_stage_reads_the_graphs_of_every_variant(tmp_path: Path) -> None:
    plan = make_plan(load_recipe(recipe_file(tmp_path, ", genai: fp16")), weights=tmp_path)
    stage = next(stage for stage in plan.stages if stage.name == ONNX_GENAI)
    assert set(stage.inputs.values()) == {
        "weights",
        "checkpoint",
        "onnx.vision_encoder",
        "onnx.embed_tokens",
        "onnx.decoder_model_merged",
        "onnx.vision_encoder.fp16",
        "onnx.language.fp16",
    }


def test_without_the_key_there_is_no_stage(tmp_path: Path) -> None:
    for genai in ("", ", genai: null"):
        plan = make_plan(load_recipe(recipe_file(tmp_path, genai)), weights=tmp_path)
        assert ONNX_GENAI not in [stage.name for stage in plan.stages]


def test_a_variant_that_is_not_built_cannot_be_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"targets\.onnx\.genai: int4 is not built") as caught:
        load_recipe(recipe_file(tmp_path, ", genai: int4"))
    assert "fp32, fp16" in (caught.value.hint or "")


def test_the_graphs_are_called_what_genai_calls_them() -> None:
    assert onnx_genai_graphs("int4") == (
        "vision_quantized",
        "embedding_q4",
        "decoder_model_merged_q4",
    )
