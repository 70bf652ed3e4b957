"""What quantization alone costs, measured on the reference; and goldens that stand for it."""

import numpy as np
import pytest
import torch

from fastvlm_compile.progress import silent
from reference.loading import load
from validation.compression_table import compression_table
from validation.goldens import GoldenError
from validation.measurement import Measurement
from validation.onnx_parity import OnnxParity, measure_onnx
from validation.quantized_reference import COMPONENTS, measure_reference
from validation.quantized_variants import QuantizedVariant
from validation.runtimes.onnxruntime_runtime import OnnxRuntime
from validation.substituted_goldens import SubstitutedGoldens, projected
from validation.tensor_parity import Tolerance

TOLERANCE = Tolerance(rtol=1e-2, atol=1e-3)


def measure(model, original, goldens, tokenizer):
    measurements, outputs = measure_reference(
        model,
        original,
        variant="int4",
        tolerance=TOLERANCE,
        goldens=goldens,
        tokenizer=tokenizer,
        progress=silent,
    )
    return {(m.component, m.metric): m.value for m in measurements}, outputs


@pytest.fixture(scope="module")
def same(model, goldens, tokenizer):
    return measure(model, model, goldens, tokenizer)


@pytest.fixture(scope="module")
def rougher(random_checkpoint, model, goldens, tokenizer):
    """A model whose decoder and projector were rounded to few bits; tower and table were not."""
    changed = load(random_checkpoint)
    for part in (changed.projector, changed.language.layers):
        for parameter in part.parameters():
            if parameter.dim() == 2:
                step = parameter.abs().max() / 8
                parameter.data = torch.round(parameter / step) * step
    return measure(changed, model, goldens, tokenizer)


def test_an_unchanged_model_costs_nothing(same):
    values, _ = same
    for component in COMPONENTS:
        assert values[component, "relative_l2"] <= 1e-5  # other threads add in another order
    assert values["end_to_end", "greedy_agreement"] == 1
    assert values["end_to_end", "task_greedy_agreement"] == 1


def test_the_cost_shows_in_the_components_that_were_changed_and_in_no_other(rougher):
    values, _ = rougher
    for component in ("vision", "embedding"):
        assert values[component, "relative_l2"] == 0
    for component in ("projector", "vision_encoder", "decoder", "end_to_end", "held_out"):
        assert values[component, "relative_l2"] > 1e-2
    assert values["decoder", "kl_mean"] > 1e-6


def test_substituted_goldens_keep_the_inputs_and_change_the_outputs(goldens, rougher):
    _, outputs = rougher
    changed = SubstitutedGoldens(goldens, outputs.arrays)
    case, image = goldens.index.cases[0], goldens.index.image_ids[0]
    assert np.array_equal(changed.inputs_embeds(case), goldens.inputs_embeds(case))
    assert np.array_equal(changed.pixel_values(image), goldens.pixel_values(image))
    assert not np.array_equal(changed.logits(case), goldens.logits(case))
    assert changed.array(projected(image)).shape == goldens.image_features(image).shape


def test_an_output_of_another_shape_cannot_stand_for_a_golden(goldens):
    case = goldens.index.cases[0]
    with pytest.raises(GoldenError, match="cannot stand for"):
        SubstitutedGoldens(goldens, {f"cases/{case.id}/logits": np.zeros((1, 2), np.float32)})


def test_graphs_are_measured_against_both_references(goldens, rougher, graphs, tokenizer):
    _, outputs = rougher
    measurements = measure_onnx(
        OnnxParity(
            variant="int4",
            logits="full",
            tolerance=TOLERANCE,
            dequantized=SubstitutedGoldens(goldens, outputs.arrays),
        ),
        goldens=goldens,
        runtime=OnnxRuntime(graphs),
        tokenizer=tokenizer,
        progress=silent,
    )
    values = {(m.component, m.metric): m.value for m in measurements}
    # These graphs are the plain ones: all of the difference is to the rougher reference.
    assert values["decoder", "relative_l2"] < 1e-5
    assert values["decoder_precision", "relative_l2"] > 1e-2
    assert values["decoder_conversion", "relative_l2"] > 1e-2
    assert values["embed_tokens_conversion", "max_abs"] == 0


def test_the_table_has_the_parts_and_the_whole_side_by_side():
    def measured(target, variant, component, value):
        return Measurement(
            target=target,
            variant=variant,
            component=component,
            metric="relative_l2",
            value=value,
            num_cases=1,
            executor=f"{target} executor",
        )

    table = compression_table(
        [
            measured("reference", "int4-mlx", "decoder", 0.08),
            measured("mlx", "int4", "decoder_conversion", 0.0001),
            measured("mlx", "int4", "decoder", 0.0801),
        ],
        [QuantizedVariant(target="mlx", variant="int4", quantization="int4-mlx")],
    )
    line = next(line for line in table.splitlines() if line.startswith("| mlx"))
    assert "| mlx | int4 | decoder | relative_l2 | 0.08 |" in line
    assert line.endswith("| mlx executor |")
    assert compression_table([], []) == ""
