"""Which images, prompts and questions the goldens hold: chosen, not computed."""

from dataclasses import dataclass

from PIL import Image

from reference.errors import UserError
from reference.prompt import build_prompt
from reference.scenes.questions import EXACT_KINDS, Question
from reference.scenes.scene import held_out
from validation.golden_plan import GoldenPlan
from validation.photographs import photographs


@dataclass(frozen=True, kw_only=True)
class CaseInput:
    """One prompt to run: its id, text with an `<image>` for each image, and which images."""

    id: str
    prompt: str
    image_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TaskScene:
    """A scene to render and the questions asked about it, as (prompt text, question)."""

    id: str
    image: Image.Image
    questions: tuple[tuple[str, Question], ...]


@dataclass(frozen=True, kw_only=True)
class GoldenInputs:
    """Everything to run the reference on.

    Attributes:
        plan: how it was chosen.
        images: by id, as they are before preprocessing.
        sized_images: which of them are kept in which further sizes.
        cases: in the order of the file.
        task_scenes: held-out scenes with their questions.
    """

    plan: GoldenPlan
    images: dict[str, Image.Image]
    sized_images: tuple[tuple[str, int], ...]
    cases: tuple[CaseInput, ...]
    task_scenes: tuple[TaskScene, ...]


def golden_inputs(plan: GoldenPlan) -> GoldenInputs:
    """Renders and collects what `plan` asks for; the same plan gives the same inputs.

    Raises:
        UserError: nothing to compare is asked for, or photographs without a prompt.
    """
    if plan.photographs and not plan.prompts:
        raise UserError(
            f"{plan.photographs} golden photographs are asked for and no prompt to ask about them",
            hint="give at least one text in goldens.prompts",
        )
    images: dict[str, Image.Image] = {}
    cases: list[CaseInput] = []
    for index in range(plan.scenes):
        scene = held_out(index)
        question = scene.questions[index % len(scene.questions)]
        images[f"scene-{index}"] = scene.image
        cases.append(_case(plan, f"scene-{index}", question.text, (f"scene-{index}",)))
    for index, photograph in enumerate(photographs(plan.photographs)):
        name = f"photo-{photograph.name}"
        images[name] = photograph.image
        cases.append(_case(plan, name, plan.prompts[index % len(plan.prompts)], (name,)))
    if not images:
        raise UserError(
            "the goldens hold no image, so nothing about images could be compared",
            hint="set goldens.scenes or goldens.photographs to at least 1",
        )
    if plan.prompts:
        cases.append(_case(plan, "text", plan.prompts[0], ()))
        if len(images) > 1:
            cases.append(_case(plan, "two-images", plan.prompts[-1], tuple(images)[:2]))
    # Nothing to see: here the tower's variances are smallest, and a wrong epsilon shows.
    images["plain"] = Image.new("RGB", (64, 64), (128, 128, 128))
    return GoldenInputs(
        plan=plan,
        images=images,
        sized_images=tuple(
            (name, size) for size in plan.image_sizes for name in (next(iter(images)), "plain")
        ),
        cases=tuple(cases),
        task_scenes=_task_scenes(plan),
    )


def _case(plan: GoldenPlan, case_id: str, question: str, image_ids: tuple[str, ...]) -> CaseInput:
    prompt = build_prompt(question, image_position=plan.image_position, num_images=len(image_ids))
    return CaseInput(id=case_id, prompt=prompt, image_ids=image_ids)


def _task_scenes(plan: GoldenPlan) -> tuple[TaskScene, ...]:
    scenes: list[TaskScene] = []
    wanted = plan.task_questions
    while wanted > 0:
        scene = held_out(len(scenes))
        exact = [question for question in scene.questions if question.kind in EXACT_KINDS]
        chosen = tuple(
            (build_prompt(question.text, image_position=plan.image_position), question)
            for question in exact[:wanted]
        )
        wanted -= len(chosen)
        scenes.append(TaskScene(id=f"scene-{len(scenes)}", image=scene.image, questions=chosen))
    return tuple(scenes)
