"""The reference with dequantized weights on the golden inputs: what quantization alone costs.

No encoder and no runtime has a part in these numbers. What the model returned is kept, so that the
runtimes' own error can be told apart (see `validation.substituted_goldens`).
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from reference.decoding import GenerationError
from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.lockstep import logits_together
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer
from validation.answer import splice
from validation.end_to_end_parity import measure_generations, measure_task
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.package_outputs import PackageOutputs
from validation.progress import Progress, Steps
from validation.runtimes.base import Floats
from validation.runtimes.foreseeing import ForeseeingRuntime
from validation.substituted_goldens import SubstitutedGoldens, projected
from validation.tally import Tally
from validation.tensor_parity import Comparison, Tolerance, Where, add_logits, add_tensor

if TYPE_CHECKING:
    from reference.fastvlm import FastVLM

TARGET = "reference"
COMPONENTS = (
    *("vision", "projector", "vision_encoder", "embedding", "decoder", "end_to_end"),
    "held_out",
)
"""`vision_encoder` is tower and projector together. `held_out` are the task questions with the
reference's answers: the whole model's next-token distributions at every position of them."""

MAX_HELD_OUT = 100
"""Questions whose distributions are compared: some five thousand positions."""


def measure_reference(
    model: "FastVLM",
    original: "FastVLM",
    *,
    variant: str,
    tolerance: Tolerance,
    goldens: Goldens,
    tokenizer: PromptTokenizer,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> tuple[tuple[Measurement, ...], PackageOutputs]:
    """Runs a quantized reference and compares it with the float32 one; both may be streamed.

    Args:
        model: with dequantized weights, float32.
        original: the reference itself, for questions whose logits the goldens do not hold.
        variant: the name of the quantization.
        tolerance: for the smallest passing tolerances.
        goldens: the inputs, and what the float32 reference made of them.
        tokenizer: turns answers into text.
        progress: told of every image, case and task scene.
        kept: what an earlier run of the same has left: images, and passes of the language models.

    Returns:
        Measurements of `COMPONENTS`, and all outputs by the names of the goldens' arrays.
    """
    index = goldens.index
    runtime = ForeseeingRuntime(model)
    scenes = {question.scene_id for question in index.questions}
    held_out = index.questions[:MAX_HELD_OUT]
    num_scenes = len(scenes) + len({question.scene_id for question in held_out})
    steps = Steps(progress, len(_images(goldens)) + 2 * len(index.cases) + num_scenes)
    arrays = dict(_run(model, goldens, steps, kept))
    comparison = Comparison(goldens=goldens, tolerance=tolerance, steps=steps)
    substituted = SubstitutedGoldens(goldens, arrays)
    tallies = {
        name: Tally(target=TARGET, variant=variant, component=name, executor=runtime.executor)
        for name in COMPONENTS
    }
    _compare_images(comparison, substituted, tallies)
    rows = goldens.array("embedding/rows"), substituted.array("embedding/rows")
    where = Where(case="table")
    add_tensor(tallies["embedding"], "rows", *rows, where=where, tolerance=tolerance)
    for case in index.cases:
        add_logits(
            tallies["decoder"],
            goldens.logits(case),
            substituted.logits(case),
            where=Where(case=case.id),
            tolerance=tolerance,
            vocab_limit=goldens.contract.vocab_limit,
        )
    features = {image_id: substituted.image_features(image_id) for image_id in index.image_ids}
    _foresee(runtime, goldens, features, kept.part("answers"))
    measure_generations(comparison, runtime, tallies["end_to_end"], features)
    not_run = measure_task(comparison, runtime, tallies["end_to_end"], tokenizer)
    held_out_kept = kept.part("original"), kept.part("quantized")
    _compare_held_out(comparison, (original, model), tallies["held_out"], held_out_kept)
    steps.end()
    measured = [each for tally in tallies.values() for each in tally.measurements()]
    outputs = PackageOutputs(executor=runtime.executor, executed_by_core_ml=False, arrays=arrays)
    return (*measured, *not_run), outputs


def _compare_images(
    comparison: Comparison, substituted: Goldens, tallies: dict[str, Tally]
) -> None:
    goldens = comparison.goldens
    for image_id in _images(goldens):
        where = Where(case=image_id)
        pairs = {
            "vision": (goldens.vision_features(image_id), substituted.vision_features(image_id)),
            "projector": (
                goldens.image_features(image_id),
                substituted.array(projected(image_id)),
            ),
            "vision_encoder": (
                goldens.image_features(image_id),
                substituted.image_features(image_id),
            ),
        }
        for component, (reference, found) in pairs.items():
            add_tensor(
                tallies[component],
                "features",
                reference,
                found,
                where=where,
                tolerance=comparison.tolerance,
            )


@torch.inference_mode()
def _run(
    model: "FastVLM", goldens: Goldens, steps: Steps, kept: Kept
) -> Iterator[tuple[str, Floats]]:
    for image_id in _images(goldens):
        steps.begin(f"image {image_id}")

        def encode(_: Kept, image_id: str = image_id) -> Arrays:
            features = model.vision_tower(torch.from_numpy(goldens.pixel_values(image_id))[None])
            own = torch.from_numpy(goldens.vision_features(image_id))[None]
            return {
                f"images/{image_id}/vision_features": features[0].numpy(),
                f"images/{image_id}/image_features": model.project(features)[0].numpy(),
                projected(image_id): model.project(own)[0].numpy(),
            }

        yield from kept.arrays(f"image {image_id}", encode).items()
    ids = torch.from_numpy(goldens.array("embedding/ids"))
    yield "embedding/rows", model.embed(ids[None])[0].numpy()
    cases = goldens.index.cases
    prompts = [torch.from_numpy(goldens.inputs_embeds(case))[None] for case in cases]
    counts = [each.shape[1] - case.first_logit for case, each in zip(cases, prompts, strict=True)]
    # The head sees as many rows as it did for the goldens, which can change a last bit.
    together = logits_together(model.language, prompts, max(counts), kept=kept.part("cases"))
    for case, count, logits in zip(cases, counts, together, strict=True):
        steps.begin(f"prompt {case.id}")
        yield f"cases/{case.id}/logits", logits[-count:].numpy()


def _foresee(
    runtime: ForeseeingRuntime,
    goldens: Goldens,
    image_features: Mapping[str, Floats],
    kept: Kept,
) -> None:
    """Decode the prompts that `measure_generations` will ask about, all together."""
    prompts = []
    for case in goldens.index.cases:
        if case.generated:
            features = [image_features[name] for name in case.image_ids]
            images = np.stack(features) if features else None
            prompts.append(splice(runtime, goldens.prompt_ids(case), images))
    with suppress(GenerationError):  # then each is decoded alone, and the broken ones are told
        runtime.foresee(prompts, goldens.contract.greedy(), kept)


@torch.inference_mode()
def _compare_held_out(
    comparison: Comparison,
    models: "tuple[FastVLM, FastVLM]",
    tally: Tally,
    kept: tuple[Kept, Kept],
) -> None:
    goldens = comparison.goldens
    contract = goldens.contract
    asked = goldens.index.questions[:MAX_HELD_OUT]
    prompts: tuple[list[torch.Tensor], ...] = ([], [])
    for scene_id, questions in groupby(asked, key=lambda question: question.scene_id):
        comparison.steps.begin(f"distributions about {scene_id}")
        image = goldens.task_image(scene_id)
        pixels = preprocess(image, size=contract.image_size, fit=contract.fit)
        features = [
            _features(each, torch.from_numpy(pixels)[None], keeper, scene_id)
            for each, keeper in zip(models, kept, strict=True)
        ]
        for question in questions:
            ids = torch.tensor([(*question.prompt_ids, *question.reference_token_ids)])
            for each, seen, embeds in zip(models, features, prompts, strict=True):
                embeds.append(each.splice(ids, seen))
    both = (
        logits_together(each.language, embeds, kept=keeper)
        for each, embeds, keeper in zip(models, prompts, kept, strict=True)
    )
    for number, (question, expected, found) in enumerate(zip(asked, *both, strict=True)):
        add_logits(
            tally,
            expected.numpy(),
            found.numpy(),
            where=Where(case=f"{question.scene_id}, question {number}"),
            tolerance=comparison.tolerance,
            vocab_limit=contract.vocab_limit,
        )


def _features(model: "FastVLM", pixels: torch.Tensor, kept: Kept, scene_id: str) -> torch.Tensor:
    """[1, T, H] of a scene's image [1, 3, S, S]."""

    def encode(_: Kept) -> Arrays:
        return {"features": model.encode_image(pixels).numpy()}

    return torch.from_numpy(kept.arrays(f"image of {scene_id}", encode)["features"])


def _images(goldens: Goldens) -> tuple[str, ...]:
    """In the recipe's size and in further ones."""
    index = goldens.index
    return (*index.image_ids, *(image.id for image in index.sized_images))
