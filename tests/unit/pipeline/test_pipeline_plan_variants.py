"""Quantize once: what variants share is one stage, and every stage comes after what it reads."""

from pathlib import Path

import pytest

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.plan import make_plan, onnx_graph_stages, parity_stages
from fastvlm_compile.plan_quantize import parts_of, policy_of
from fastvlm_compile.plan_variants import onnx_graphs
from fastvlm_compile.recipe import components_of, quantization_of
from fastvlm_compile.recipe_file import load_recipe

RECIPE = """\
schema: 1
name: small
checkpoint:
  path: somewhere
image:
  size: 128
  fit: pad
  position: before
context_length: 256
goldens:
  scenes: 1
  photographs: 0
  prompts: [Describe it.]
  max_new_tokens: 4
  task_questions: 0
quantization:
  calibration: {scenes: 4, photographs: 0, prompts: []}
  mixed_bits: 5.0
targets:
  onnx: {variants: [fp32, fp16, int8, int4, int4-fast, mixed], logits: last, opset: 21}
  coreml:
    precisions: [float16, float32]
    compressed: [int8, int4, lut4, lut6, mixed]
    ship: [float16, int4]
    language: {prefill_chunk: 32, max_chunk_mb: 100}
  mlx: {variants: [fp16, int4, mixed]}
gates: []
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(old: str = "", new: str = "") -> Path:
        assert old in RECIPE
        file = tmp_path / "recipe.yaml"
        file.write_text(RECIPE.replace(old, new, 1) if old else RECIPE)
        return file

    return write


@pytest.fixture
def plan(write, tmp_path: Path):
    return make_plan(load_recipe(write()), weights=tmp_path)


@pytest.fixture
def stages(plan):
    return {stage.name: stage for stage in plan.stages}


def test_a_stage_comes_after_what_it_reads(plan):
    known = {source.name for source in plan.sources}
    for stage in plan.stages:
        assert set(stage.inputs.values()) <= known, stage.name
        known.add(stage.name)
    assert len(known) == len(plan.sources) + len(plan.stages), "a name is given twice"


def test_variants_share_the_quantized_parts_that_are_the_same(stages):
    assert stages["onnx.language.int4"].inputs["quantized"] == "quantize.language-int4"
    assert stages["coreml.decoder.int4"].inputs["quantized"] == "quantize.language-int4"
    assert stages["coreml.vision.int8"].inputs["quantized"] == "quantize.vision-int8"
    assert stages["onnx.vision_encoder.int8"].inputs["quantized"] == "quantize.vision-int8"
    assert stages["mlx.int4"].inputs["quantized_language"] == "quantize.language-int4-group64"
    assert stages["mlx.mixed"].inputs["quantized_language"] == "quantize.mixed"
    assert stages["onnx.language.mixed"].inputs["quantized"] == "quantize.mixed"
    assert sum(name.startswith("quantize.vision") for name in stages) == 2


def test_all_integer_variants_of_onnx_have_one_tower(stages):
    towers = {
        stages[f"parity.onnx.{variant}"].inputs["vision_encoder"]
        for variant in ("int8", "int4", "int4-fast", "mixed")
    }
    assert towers == {"onnx.vision_encoder.int8"}


def test_every_quantized_variant_is_compared_with_the_reference_that_has_its_weights(stages):
    assert stages["parity.onnx.int4"].inputs["reference"] == "parity.reference.int4"
    assert stages["parity.coreml.int4"].inputs["reference"] == "parity.reference.int4"
    assert stages["parity.mlx.int4"].inputs["reference"] == "parity.reference.int4-mlx"
    assert stages["parity.coreml.mixed"].inputs["reference"] == "parity.reference.mixed-coreml"
    assert "reference" not in stages["parity.onnx.fp16"].inputs
    reference = stages["parity.reference.int4"].inputs
    assert reference["quantized_vision"] == "quantize.vision-int8"
    assert reference["quantized_language"] == "quantize.language-int4"


def test_only_methods_that_need_inputs_wait_for_the_calibration(stages):
    assert "calibration" in stages["quantize.language-int4"].inputs
    assert "calibration" not in stages["quantize.vision-int8"].inputs
    assert "calibration" not in stages["quantize.language-lut4"].inputs


def test_the_report_has_the_references_before_the_variants(write):
    names = parity_stages(load_recipe(write()))
    assert names[0] == "parity.reference.int8"
    assert names.index("parity.reference.mixed") < names.index("parity.onnx.fp32")
    assert len(set(names)) == len(names)


def test_graphs_and_stages_of_a_bundle_name_each_other(write):
    recipe = load_recipe(write())
    assert recipe.targets.onnx is not None
    assert onnx_graph_stages(recipe.targets.onnx)[-1] == "onnx.language.mixed"
    assert onnx_graphs("int4") == (
        "vision_encoder_quantized",
        "embed_tokens_q4",
        "decoder_model_merged_q4",
    )
    assert onnx_graphs("fp32")[0] == "vision_encoder"


def test_parts_and_quantizations_have_names_for_every_target(write):
    recipe = load_recipe(write())
    assert parts_of(recipe, "coreml", "lut4") == {
        "vision": "quantize.vision-lut6",
        "language": "quantize.language-lut4",
    }
    assert parts_of(recipe, "mlx", "int4") == {
        "projector": "quantize.projector-int4-group64",
        "language": "quantize.language-int4-group64",
    }
    for target in ("onnx", "mlx"):
        assert parts_of(recipe, target, "mixed")["language"] == "quantize.mixed"
    assert parts_of(recipe, "coreml", "mixed")["language"] == "quantize.mixed-tables"
    assert policy_of("coreml") == "policy.mixed-tables"
    assert quantization_of("onnx", "fp16") is None
    assert quantization_of("coreml", "int8") == "int8-channel"


def test_with_blocks_of_64_four_bits_are_chosen_once_for_all_targets(write):
    wide = load_recipe(write("  mixed_bits", "  int4_block: 64\n  mixed_bits"))
    shared = "quantize.language-int4-group64"
    for target in ("onnx", "coreml", "mlx"):
        assert parts_of(wide, target, "int4")["language"] == shared
    names = {stage.name for stage in make_plan(wide, weights=Path("w")).stages}
    assert shared in names
    assert "quantize.language-int4" not in names
    assert parts_of(wide, "onnx", "int8")["language"] == "quantize.language-int8"


def test_float16_packages_that_are_only_compressed_are_converted_and_not_measured(write):
    old = RECIPE[RECIPE.index("    precisions") : RECIPE.index("    language")]
    recipe = load_recipe(
        write(old, "    precisions: []\n    compressed: [int4]\n    ship: [int4]\n")
    )
    assert recipe.targets.variants()["coreml"] == ("int4",)
    names = {stage.name for stage in make_plan(recipe, weights=Path("w")).stages}
    assert {"coreml.decoder.float16", "coreml.decoder.int4", "parity.coreml.int4"} <= names
    assert "parity.coreml.float16" not in names


def test_an_error_is_split_only_where_it_has_parts(write):
    targets = load_recipe(write()).targets
    assert "decoder_precision" in components_of(targets, "onnx", "int4")
    assert "decoder_conversion" not in components_of(targets, "onnx", "fp16")
    assert "decoder_precision" in components_of(targets, "coreml", "int4")
    assert "decoder" in components_of(targets, "reference", "int4")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            RECIPE[RECIPE.index("quantization:") : RECIPE.index("targets:")],
            "",
            "targets.onnx: `int8` is quantized, but there is no `quantization`",
        ),
        (
            "{scenes: 4, photographs: 0",
            "{scenes: 4, photographs: 10",
            "quantization.calibration.photographs: 10 and the goldens' 0 are more than the 9",
        ),
        ("  mixed_bits: 5.0\n", "", "quantization.mixed_bits: missing"),
        ("mixed_bits: 5.0", "mixed_bits: 12", "quantization.mixed_bits: found the number 12"),
        ("ship: [float16, int4]", "ship: [int4-fast]", "targets.coreml.ship: int4-fast is not"),
        ("variants: [fp16, int4, mixed]", "variants: [lut4]", "targets.mlx.variants[0]: found"),
    ],
)
def test_a_quantization_that_cannot_be_is_told(write, old, new, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(old, new))
    assert message in caught.value.message
