"""Stage `golden`: golden inputs and what the float32 reference makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.progress import Progress


@dataclass(frozen=True, kw_only=True)
class GoldenConfig:
    """Which inputs are kept, and the contract they are prepared under.

    Attributes:
        image_size: side S of the square that the vision tower sees, pixels.
        fit: how an image becomes a square.
        image_position: image before or after the question.
        scenes: number of rendered held-out scenes, one question each.
        photographs: number of photographs, one of `prompts` each.
        prompts: questions for photographs, text alone, and several images at once.
        max_new_tokens: length of the greedy answers, tokens.
        task_questions: number of held-out scene questions with known answers.
        context_to_fill: positions of one more case, which fills them all; 0 for no such case.
        image_sizes: further sides in pixels at which the tower's outputs are kept.
    """

    image_size: int
    fit: Literal["pad", "crop"]
    image_position: Literal["before", "after"]
    scenes: int
    photographs: int
    prompts: tuple[str, ...]
    max_new_tokens: int
    task_questions: int
    context_to_fill: int = 0
    image_sizes: tuple[int, ...] = ()


def golden(config: GoldenConfig, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Writes goldens (see `validation.goldens`).

    Args:
        config: what to keep.
        inputs: `weights`, a checkpoint in any layout, and `checkpoint`, the stage whose
            `processor/` holds the tokenizer.
        out: an empty directory.
        progress: told of every image, case and task question.
    """
    from reference.loading import load
    from reference.prompt import load_tokenizer
    from validation.golden_inputs import GoldenPlan, golden_inputs
    from validation.golden_run import run_reference

    plan = GoldenPlan(
        image_size=config.image_size,
        fit=config.fit,
        image_position=config.image_position,
        scenes=config.scenes,
        photographs=config.photographs,
        prompts=config.prompts,
        max_new_tokens=config.max_new_tokens,
        task_questions=config.task_questions,
        context_to_fill=config.context_to_fill,
        image_sizes=config.image_sizes,
    )
    inputs_to_run = golden_inputs(plan)
    tokenizer = load_tokenizer(inputs["checkpoint"] / "processor")
    run_reference(load(inputs["weights"]), tokenizer, inputs_to_run, out, progress)
