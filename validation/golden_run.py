"""Runs the float32 reference on the golden inputs and keeps what it computes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from reference.generation import generate
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer, encode_prompt
from reference.session import TorchSession
from validation.golden_file import write_goldens
from validation.golden_filling import NUM_GIVEN, filling_ids
from validation.golden_inputs import CaseInput, GoldenInputs, GoldenPlan, TaskScene
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
) -> None:
    """Computes and writes the goldens, one image and one prompt at a time.

    Args:
        model: the reference in float32.
        tokenizer: of the checkpoint.
        inputs: what to run.
        out: an empty directory.
        progress: told of every image, case and task scene.

    Raises:
        GenerationError: the reference itself gives logits that are not finite.
    """
    run = _Run(model=model, tokenizer=tokenizer, contract=_contract(inputs.plan, model, tokenizer))
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
    cases = []
    for case in inputs.cases:
        steps.begin(f"prompt {case.id}")
        cases.append(_run_case(run, case))
    if inputs.plan.context_to_fill:
        steps.begin("prompt that fills the context")
        cases.append(_run_filling(run, inputs.plan))
    questions: list[TaskQuestion] = []
    for scene in inputs.task_scenes:
        steps.begin(f"questions about {scene.id}")
        questions.extend(_run_task(run, scene))
    write_goldens(
        out,
        contract=run.contract,
        shape=model_shape(model, image_size=inputs.plan.image_size),
        image_ids=tuple(inputs.images),
        sized_images=tuple(sized_images),
        cases=tuple(cases),
        questions=tuple(questions),
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
    images, filling = len(inputs.images) + len(inputs.sized_images), inputs.plan.context_to_fill
    return images + len(inputs.cases) + bool(filling) + len(inputs.task_scenes)


def _run_vision(run: _Run, image_id: str, image: "Image", size: int) -> None:
    pixels = preprocess(image, size=size, fit=run.contract.fit)
    run.arrays[f"images/{image_id}/pixel_values"] = pixels
    features = run.model.vision_tower(run.pixels(image_id))
    run.arrays[f"images/{image_id}/vision_features"] = features[0].numpy()
    run.arrays[f"images/{image_id}/image_features"] = run.model.project(features)[0].numpy()


def _keep_embedding(run: _Run) -> None:
    """Rows of the embedding: all of a small table, evenly spread ones of a large one."""
    table = run.model.language.embed_tokens.weight
    count = min(table.shape[0], _MAX_EMBEDDING_VALUES // table.shape[1])
    ids = np.unique(np.linspace(0, table.shape[0] - 1, num=count).round().astype(np.int64))
    run.arrays["embedding/ids"] = ids
    run.arrays["embedding/rows"] = table[torch.from_numpy(ids)].numpy()


def _run_case(run: _Run, case: CaseInput) -> GoldenCase:
    prompt_ids = encode_prompt(case.prompt, run.tokenizer, num_images=len(case.image_ids))
    prompt = run.model.splice(torch.from_numpy(prompt_ids)[None], run.features(case.image_ids))
    token_ids = _greedy(run, prompt)
    return _keep_case(run, case, prompt_ids, prompt, token_ids, generated=True)


def _run_filling(run: _Run, plan: GoldenPlan) -> GoldenCase:
    """A text that takes all positions of the context; its end stands for an answer."""
    ids = filling_ids(plan.prompts, run.tokenizer, plan.context_to_fill)
    prompt_ids, token_ids = ids[:-NUM_GIVEN], tuple(int(token) for token in ids[-NUM_GIVEN:])
    prompt = run.model.embed(torch.from_numpy(prompt_ids)[None])
    text = run.tokenizer.decode([int(token) for token in prompt_ids])
    case = CaseInput(id=FILLING, prompt=text, image_ids=())
    return _keep_case(run, case, prompt_ids, prompt, token_ids, generated=False)


def _keep_case(
    run: _Run,
    case: CaseInput,
    prompt_ids: np.ndarray,
    prompt: torch.Tensor,
    token_ids: tuple[int, ...],
    *,
    generated: bool,
) -> GoldenCase:
    answer = run.model.embed(torch.tensor([token_ids], dtype=torch.long))
    embeds = torch.cat([prompt, answer], dim=1)
    logits, _ = run.model.language(embeds)
    num_positions, vocab_size = logits.shape[1:]
    first_logit = max(0, num_positions - max(1, MAX_LOGIT_VALUES // vocab_size))
    run.arrays[f"cases/{case.id}/prompt_ids"] = prompt_ids
    run.arrays[f"cases/{case.id}/inputs_embeds"] = embeds[0].numpy()
    run.arrays[f"cases/{case.id}/logits"] = logits[0, first_logit:].numpy().copy()  # not the rest
    return GoldenCase(
        id=case.id,
        prompt=case.prompt,
        image_ids=case.image_ids,
        prompt_length=prompt.shape[1],
        first_logit=first_logit,
        token_ids=token_ids,
        answer=run.tokenizer.decode(token_ids),
        generated=generated,
    )


def _run_task(run: _Run, scene: TaskScene) -> list[TaskQuestion]:
    run.arrays[f"tasks/{scene.id}/image"] = np.asarray(scene.image.convert("RGB"))
    contract = run.contract
    pixels = preprocess(scene.image, size=contract.image_size, fit=contract.fit)
    features = run.model.encode_image(torch.from_numpy(pixels)[None])
    answered = []
    for prompt, question in scene.questions:
        prompt_ids = encode_prompt(prompt, run.tokenizer, num_images=1)
        token_ids = _greedy(run, run.model.splice(torch.from_numpy(prompt_ids)[None], features))
        answered.append(
            TaskQuestion(
                scene_id=scene.id,
                kind=question.kind,
                prompt_ids=tuple(int(token) for token in prompt_ids),
                answer=question.answer,
                reference_token_ids=token_ids,
                reference_answer=run.tokenizer.decode(token_ids),
            )
        )
    return answered


def _greedy(run: _Run, prompt: torch.Tensor) -> tuple[int, ...]:
    session = TorchSession(run.model.language, prompt)
    return generate(session, run.contract.greedy()).token_ids
