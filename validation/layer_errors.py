"""Where in the model the error of a quantization arises: layer by layer, on one golden case.

The reference and the quantized model run side by side, a layer of one and then the same layer of
the other. So neither has to be there as a whole: their layers may be made as they are asked for.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference.fastvithd import NUM_STAGES
from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.qwen2 import attention_bias, rotary_embedding
from validation.goldens import GoldenCase, Goldens
from validation.layer_curves import LayerCurve, LayerError, Part
from validation.metrics import tensor_metrics
from validation.progress import Progress

if TYPE_CHECKING:
    from reference.fastvithd import FastViTHD
    from reference.fastvlm import FastVLM
    from reference.qwen2 import Qwen2

Layer = Callable[[Tensor], Tensor]
"""What takes a hidden state and hands on the next."""

Named = tuple[str, Layer]
"""A layer and the name of the place behind it; layers of one name in turn are one place."""


@torch.inference_mode()
def measure_layers(
    model: "FastVLM",
    original: "FastVLM",
    *,
    variant: str,
    executor: str,
    goldens: Goldens,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> LayerCurve:
    """Runs one golden case through both.

    Args:
        model: with dequantized weights, float32.
        original: the reference itself.
        variant: the name of the quantization.
        executor: what runs them, by name and version.
        goldens: the inputs.
        progress: told of every place that was compared.
        kept: the states of both behind the last place that an earlier run has come to.
    """
    case = layer_case(goldens)
    image = _image(goldens, case)
    num_places = (NUM_STAGES + 1 if image else 0) + goldens.shape.num_layers
    errors: list[LayerError] = []
    for error in _errors((original, model), goldens, case, image, kept):
        errors.append(error)
        progress(len(errors), num_places, f"compared {error.part} {error.name}")
    return LayerCurve(
        variant=variant, executor=executor, case=case.id, image=image, layers=tuple(errors)
    )


def _errors(
    models: "tuple[FastVLM, FastVLM]",
    goldens: Goldens,
    case: GoldenCase,
    image: str,
    kept: Kept,
) -> Iterator[LayerError]:
    """The tower's, then the decoder's."""
    if image:
        pixels = torch.from_numpy(goldens.pixel_values(image))[None]
        tower, quantized_tower = (tower_layers(each.vision) for each in models)
        yield from layer_errors("vision", tower, quantized_tower, pixels, kept=kept)
    embeds = torch.from_numpy(goldens.inputs_embeds(case))[None]
    decoder, quantized_decoder = (decoder_layers(each.language, embeds) for each in models)
    yield from layer_errors("decoder", decoder, quantized_decoder, embeds, kept=kept)


def layer_case(goldens: Goldens) -> GoldenCase:
    """The first case that the reference answered about an image, or the first at all."""
    cases = goldens.index.cases
    return next((case for case in cases if case.image_ids and case.generated), cases[0])


def layer_errors(
    part: Part,
    reference: Iterable[Named],
    candidate: Iterable[Named],
    start: Tensor,
    *,
    kept: Kept = NOTHING_KEPT,
) -> Iterator[LayerError]:
    """The relative L2 error at every place of two stacks that are given the same.

    Args:
        part: what they are.
        reference, candidate: layers in the order in which they run, equal in number and names; each
            is used once and may be made on the way.
        start: what the first layers take.
        kept: both states behind each place, whose layers are then not run again.
    """
    expected = found = start
    pairs = zip(reference, candidate, strict=True)
    for name, layers in groupby(pairs, key=lambda pair: pair[0][0]):
        stacked = list(layers)
        assert all(name == other for _, (other, _) in stacked), "two models of one structure"

        def run(
            _: Kept,
            states: tuple[Tensor, Tensor] = (expected, found),
            stacked: "list[tuple[Named, Named]]" = stacked,
        ) -> Arrays:
            for (_name, layer), (_other, quantized) in stacked:
                states = layer(states[0]), quantized(states[1])
            return {"expected": states[0].numpy(), "found": states[1].numpy()}

        made = kept.arrays(f"{part} behind {name}", run)
        expected, found = (torch.from_numpy(made[each]) for each in ("expected", "found"))
        error = tensor_metrics(expected.numpy(), found.numpy()).relative_l2
        yield LayerError(part=part, name=name, relative_l2=error)


def tower_layers(tower: "FastViTHD") -> Iterator[Named]:
    """The stem and what stands between two stages belong to the stage behind them."""
    stage = 1
    for layer in tower.patch_embed:
        yield f"stage {stage}", layer
    for layer in tower.network:
        yield f"stage {stage}", layer
        stage += isinstance(layer, torch.nn.Sequential)  # a stage's blocks: `make_stage`
    yield "output", tower.conv_exp


def decoder_layers(language: "Qwen2", embeds: Tensor) -> Iterator[Named]:
    """Every layer over all positions of `embeds` [1, L, D] at once, without a cache."""
    positions = torch.arange(embeds.shape[1])[None]
    rotary = rotary_embedding(positions, language.config)
    bias = attention_bias(torch.ones_like(positions), embeds.shape[1], embeds.dtype)
    for index, layer in enumerate(language.layers):
        # Bound as a default: the loop goes on before the last layer's function is dropped.
        def run(x: Tensor, layer: torch.nn.Module = layer) -> Tensor:
            hidden: Tensor = layer(x, rotary, bias, None)[0]
            return hidden

        yield f"layer {index}", run


def _image(goldens: Goldens, case: GoldenCase) -> str:
    return next(iter((*case.image_ids, *goldens.index.image_ids)), "")
