"""Runs the float32 reference on the golden inputs and keeps what it computes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.lockstep import greedy_together, logits_together
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer, encode_prompt
from validation.golden_file import write_goldens
from validation.golden_filling import NUM_GIVEN, filling_ids
from validation.golden_inputs import CaseInput, GoldenInputs, TaskScene
from validation.golden_plan import GoldenPlan
from validation.goldens import (
    MAX_LOGIT_VALUES,
    GoldenCase,
    GoldenContract,
    SizedImage,
    TaskQuestion,
)
from validation.model_shape import ModelShape
from validation.progress import Progress, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

    from reference.fastvlm import FastVLM

FILLING = "filling"
"""Id of the case that fills the context."""

_MAX_EMBEDDING_VALUES = 2_000_000  # 8 MB of float32: all of a tiny table, a sample of a large one


@dataclass(kw_only=True)
class _Run:
    """What one run of the reference needs and gathers."""

    model: "FastVLM"
    tokenizer: PromptTokenizer
    contract: GoldenContract
    kept: Kept
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def pixels(self, image_id: str) -> torch.Tensor:
        """[1, 3, S, S] of a golden image."""
        return torch.from_numpy(self.arrays[f"images/{image_id}/pixel_values"])[None]

    def features(self, image_ids: tuple[str, ...]) -> torch.Tensor | None:
        """[N, T, H] of golden images, None without any."""
        if not image_ids:
            return None
        rows = [self.arrays[f"images/{image_id}/image_features"] for image_id in image_ids]
        return torch.from_numpy(np.stack(rows))


@torch.inference_mode()
def run_reference(
    model: "FastVLM",
    tokenizer: PromptTokenizer,
    inputs: GoldenInputs,
    out: Path,
    progress: Progress,
    *,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Computes and writes the goldens: images one at a time, prompts layer by layer.

    Args:
        model: the reference in float32, best one that streams what does not fit.
        tokenizer: of the checkpoint.
        inputs: what to run.
        out: an empty directory.
        progress: told of every image, case and task scene, and of answers at once.
        kept: what an earlier run of the same has left: images, and passes of the language model.

    Raises:
        GenerationError: the reference itself gives logits that are not finite.
    """
    contract = _contract(inputs.plan, model, tokenizer)
    run = _Run(model=model, tokenizer=tokenizer, contract=contract, kept=kept)
    steps = Steps(progress, _num_steps(inputs))
    for image_id, image in inputs.images.items():
        steps.begin(f"image {image_id}")
        _run_vision(run, image_id, image, inputs.plan.image_size)
    sized_images = []
    for image_id, size in inputs.sized_images:
        sized = SizedImage(id=f"{image_id}@{size}", size=size)
        steps.begin(f"image {sized.id}")
        _run_vision(run, sized.id, inputs.images[image_id], size)
        sized_images.append(sized)
    _keep_embedding(run)
    cases = _run_cases(run, inputs, steps)
    questions = _run_tasks(run, inputs.task_scenes, steps)
    write_goldens(
        out,
        contract=run.contract,
        shape=model_shape(model, image_size=inputs.plan.image_size),
        image_ids=tuple(inputs.images),
        sized_images=tuple(sized_images),
        cases=cases,
        questions=questions,
        arrays=run.arrays,
    )
    steps.end()


def model_shape(model: "FastVLM", *, image_size: int) -> ModelShape:
    """The sizes of a reference model that sees images of `image_size`."""
    vision, text = model.config.vision, model.config.text
    pixels_per_token = vision.image_size // vision.grid
    return ModelShape(
        image_size=image_size,
        num_image_tokens=(image_size // pixels_per_token) ** 2,
        vision_channels=vision.out_channels,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        num_layers=text.num_hidden_layers,
        num_kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
    )


def _contract(plan: GoldenPlan, model: "FastVLM", tokenizer: PromptTokenizer) -> GoldenContract:
    return GoldenContract(
        image_size=plan.image_size,
        fit=plan.fit,
        image_position=plan.image_position,
        max_new_tokens=plan.max_new_tokens,
        eos_token_ids=model.config.eos_token_ids,
        vocab_limit=min(tokenizer.vocab_size, model.config.text.vocab_size),
    )


def _num_steps(inputs: GoldenInputs) -> int:
    images, scenes = len(inputs.images) + len(inputs.sized_images), len(inputs.task_scenes)
    cases = len(inputs.cases) + bool(inputs.plan.context_to_fill)
    return images + 1 + cases + scenes + bool(scenes)


def _run_vision(run: _Run, image_id: str, image: "Image", size: int) -> None:
    pixels = preprocess(image, size=size, fit=run.contract.fit)
    run.arrays[f"images/{image_id}/pixel_values"] = pixels

    def encode(_: Kept) -> Arrays:
        features = run.model.vision_tower(run.pixels(image_id))
        return {
            "vision_features": features[0].numpy(),
            "image_features": run.model.project(features)[0].numpy(),
        }

    for name, array in run.kept.arrays(f"image {image_id}", encode).items():
        run.arrays[f"images/{image_id}/{name}"] = array


def _keep_embedding(run: _Run) -> None:
    """Rows of the embedding: all of a small table, evenly spread ones of a large one."""
    text = run.model.config.text
    count = min(text.vocab_size, _MAX_EMBEDDING_VALUES // text.hidden_size)
    ids = np.unique(np.linspace(0, text.vocab_size - 1, num=count).round().astype(np.int64))
    run.arrays["embedding/ids"] = ids
    run.arrays["embedding/rows"] = run.model.embed(torch.from_numpy(ids)[None])[0].numpy()


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """A case on its way: its prompt [1, L, H], and what is answered."""

    case: CaseInput
    prompt_ids: np.ndarray
    prompt: torch.Tensor
    token_ids: tuple[int, ...]
    generated: bool


def _run_cases(run: _Run, inputs: GoldenInputs, steps: Steps) -> tuple[GoldenCase, ...]:
    steps.begin(f"answers to {len(inputs.cases)} prompts")
    ids = [
        encode_prompt(case.prompt, run.tokenizer, num_images=len(case.image_ids))
        for case in inputs.cases
    ]
    prompts = [
        run.model.splice(torch.from_numpy(each)[None], run.features(case.image_ids))
        for each, case in zip(ids, inputs.cases, strict=True)
    ]
    answers = greedy_together(
        run.model.language, prompts, run.contract.greedy(), kept=run.kept.part("cases")
    )
    sequences = [
        _Sequence(case=case, prompt_ids=each, prompt=prompt, token_ids=answer, generated=True)
        for case, each, prompt, answer in zip(inputs.cases, ids, prompts, answers, strict=True)
    ]
    if inputs.plan.context_to_fill:
        sequences.append(_filling(run, inputs.plan))
    return _keep_cases(run, sequences, steps)


def _filling(run: _Run, plan: GoldenPlan) -> _Sequence:
    """A text that takes all positions of the context; its end stands for an answer."""
    ids = filling_ids(plan.prompts, run.tokenizer, plan.context_to_fill)
    prompt_ids, token_ids = ids[:-NUM_GIVEN], tuple(int(token) for token in ids[-NUM_GIVEN:])
    text = run.tokenizer.decode([int(token) for token in prompt_ids])
    return _Sequence(
        case=CaseInput(id=FILLING, prompt=text, image_ids=()),
        prompt_ids=prompt_ids,
        prompt=run.model.embed(torch.from_numpy(prompt_ids)[None]),
        token_ids=token_ids,
        generated=False,
    )


def _keep_cases(run: _Run, sequences: list[_Sequence], steps: Steps) -> tuple[GoldenCase, ...]:
    """Logits of prompts with their answers, in one run over all positions."""
    embeds = [
        torch.cat([each.prompt, run.model.embed(torch.tensor([each.token_ids]).long())], dim=1)
        for each in sequences
    ]
    kept = run.kept.part("logits of cases")
    num_last = max(1, MAX_LOGIT_VALUES // run.model.config.text.vocab_size)
    cases = []
    together = logits_together(run.model.language, embeds, num_last, kept=kept)
    for each, whole, logits in zip(sequences, embeds, together, strict=True):
        steps.begin(f"prompt {each.case.id}")
        run.arrays[f"cases/{each.case.id}/prompt_ids"] = each.prompt_ids
        run.arrays[f"cases/{each.case.id}/inputs_embeds"] = whole[0].numpy()
        run.arrays[f"cases/{each.case.id}/logits"] = logits.numpy()
        cases.append(
            GoldenCase(
                id=each.case.id,
                prompt=each.case.prompt,
                image_ids=each.case.image_ids,
                prompt_length=each.prompt.shape[1],
                first_logit=whole.shape[1] - len(logits),
                token_ids=each.token_ids,
                answer=run.tokenizer.decode(each.token_ids),
                generated=each.generated,
            )
        )
    return tuple(cases)


def _run_tasks(run: _Run, scenes: tuple[TaskScene, ...], steps: Steps) -> tuple[TaskQuestion, ...]:
    asked, prompts = [], []
    for scene in scenes:
        steps.begin(f"questions about {scene.id}")
        run.arrays[f"tasks/{scene.id}/image"] = np.asarray(scene.image.convert("RGB"))
        pixels = preprocess(scene.image, size=run.contract.image_size, fit=run.contract.fit)
        features = _features(run, scene, torch.from_numpy(pixels)[None])
        for prompt, question in scene.questions:
            ids = encode_prompt(prompt, run.tokenizer, num_images=1)
            asked.append((scene, question, ids))
            prompts.append(run.model.splice(torch.from_numpy(ids)[None], features))
    if scenes:
        steps.begin(f"answers to {len(prompts)} questions")
    answers = greedy_together(
        run.model.language, prompts, run.contract.greedy(), kept=run.kept.part("tasks")
    )
    return tuple(
        TaskQuestion(
            scene_id=scene.id,
            kind=question.kind,
            prompt_ids=tuple(int(token) for token in ids),
            answer=question.answer,
            reference_token_ids=token_ids,
            reference_answer=run.tokenizer.decode(token_ids),
        )
        for (scene, question, ids), token_ids in zip(asked, answers, strict=True)
    )


def _features(run: _Run, scene: TaskScene, pixels: torch.Tensor) -> torch.Tensor:
    """[1, T, H] of a scene's image [1, 3, S, S]."""

    def encode(_: Kept) -> Arrays:
        return {"features": run.model.encode_image(pixels).numpy()}

    made = run.kept.arrays(f"image of {scene.id}", encode)
    return torch.from_numpy(made["features"])
