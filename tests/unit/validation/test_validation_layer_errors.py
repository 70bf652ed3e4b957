"""Errors behind every layer: where a change begins, that it adds up, and that layers may stream."""

import math
from collections.abc import Iterator

import pytest
import torch

from fastvlm_compile.progress import silent
from reference.errors import UserError
from reference.fastvlm import FastVLM
from reference.loading import load
from validation.goldens import Goldens
from validation.layer_curves import (
    LayerCurve,
    LayerError,
    LayerReport,
    read_layers,
    write_layers,
)
from validation.layer_errors import (
    decoder_layers,
    layer_case,
    layer_errors,
    measure_layers,
    tower_layers,
)
from validation.metrics import tensor_metrics


def measured(model: FastVLM, original: FastVLM, goldens: Goldens) -> LayerCurve:
    return measure_layers(
        model, original, variant="int4", executor="torch", goldens=goldens, progress=silent
    )


def errors(curve: LayerCurve) -> dict[str, float]:
    return {f"{each.part} {each.name}": each.relative_l2 for each in curve.layers}


@pytest.fixture
def changed(random_checkpoint) -> FastVLM:
    """The small model, to be damaged."""
    return load(random_checkpoint)


def test_every_layer_of_the_decoder_and_every_stage_of_the_tower_is_told(model, goldens):
    curve = measured(model, model, goldens)
    num_layers = model.config.text.num_hidden_layers
    assert list(errors(curve)) == [
        *(f"vision stage {stage}" for stage in range(1, 6)),
        "vision output",
        *(f"decoder layer {layer}" for layer in range(num_layers)),
    ]
    assert all(error <= 1e-6 for error in errors(curve).values())
    case = next(case for case in goldens.index.cases if case.id == curve.case)
    assert case.generated
    assert curve.image == case.image_ids[0]


@torch.inference_mode()
def test_the_layers_in_turn_are_the_whole_model(model, goldens):
    case = layer_case(goldens)
    pixels = torch.from_numpy(goldens.pixel_values(case.image_ids[0]))[None]
    features = pixels
    for _, layer in tower_layers(model.vision):
        features = layer(features)
    assert torch.allclose(features, model.vision(pixels), atol=1e-5)
    embeds = torch.from_numpy(goldens.inputs_embeds(case))[None]
    hidden = embeds
    for _, layer in decoder_layers(model.language, embeds):
        hidden = layer(hidden)
    logits = model.language.lm_head(model.language.norm(hidden))
    assert torch.allclose(logits, model.language(embeds)[0], atol=1e-4)


@torch.inference_mode()
def test_the_error_behind_the_last_stage_is_that_of_the_goldens_features(model, changed, goldens):
    changed.vision.network[2][0].convffn.fc1.weight.mul_(1.05)
    curve = measured(changed, model, goldens)
    pixels = torch.from_numpy(goldens.pixel_values(curve.image))[None]
    found = changed.vision_tower(pixels)[0].numpy()
    expected = tensor_metrics(goldens.vision_features(curve.image), found).relative_l2
    assert errors(curve)["vision output"] == pytest.approx(expected, rel=1e-3)


def test_an_error_begins_at_the_layer_that_was_changed(model, changed, goldens):
    with torch.inference_mode():
        changed.language.layers[1].mlp.down_proj.weight.mul_(1.1)
    found = errors(measured(changed, model, goldens))
    assert found["vision output"] <= 1e-6
    assert found["decoder layer 0"] <= 1e-6
    assert found["decoder layer 1"] > 1e-4


def test_what_is_not_a_number_is_told_as_such(model, changed, goldens):
    with torch.inference_mode():
        changed.language.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    found = errors(measured(changed, model, goldens))
    assert found["vision output"] <= 1e-6
    assert math.isnan(found["decoder layer 0"])


def test_stacks_of_different_length_are_no_pair():
    def stack(count: int) -> Iterator[tuple[str, torch.nn.Module]]:
        return ((f"layer {index}", torch.nn.ReLU()) for index in range(count))

    with pytest.raises(ValueError, match="shorter"):
        list(layer_errors("decoder", stack(3), stack(2), torch.ones(1, 4)))


def test_a_layer_is_asked_for_only_when_it_is_run():
    running = []

    def stack(side: str) -> Iterator[tuple[str, torch.nn.Module]]:
        for index in range(3):
            running.append(f"{side}{index}")
            yield f"layer {index}", torch.nn.Identity()

    found = layer_errors("decoder", stack("a"), stack("b"), torch.ones(1, 4))
    next(found)
    # To know that a place ends, the layer behind it is looked at, and no further one.
    assert running == ["a0", "b0", "a1", "b1"]
    assert [each.relative_l2 for each in found] == [0.0, 0.0]


def test_curves_are_read_back_and_damage_is_told(tmp_path):
    layers = (
        LayerError(part="vision", name="stage 1", relative_l2=0.25),
        LayerError(part="decoder", name="layer 0", relative_l2=math.inf),
    )
    curve = LayerCurve(variant="int4", executor="torch", case="a", image="b", layers=layers)
    path = tmp_path / "layers.json"
    write_layers(path, LayerReport(curves=(curve,)))
    assert read_layers(path) == LayerReport(curves=(curve,))
    path.write_text(path.read_text().replace('"vision"', '"ears"'))
    with pytest.raises(UserError, match="expected 'vision' or 'decoder', found 'ears'"):
        read_layers(path)
