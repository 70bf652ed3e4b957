"""How much a recipe runs through the model: images, positions and decode steps."""

from dataclasses import dataclass

from fastvlm_compile.estimate.model import ModelFacts, vision_flop
from fastvlm_compile.recipe import Recipe

_PROMPT_TOKENS = 35
"""Of a template with a question, about; the tokenizers differ by a few."""
_ANSWER_TOKENS = 6
"""Of a task question."""
QUESTIONS_PER_SCENE = 5.5


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is run once through the model.

    Attributes:
        pixels: of all images together.
        num_images: in any size.
        num_cases: prompts.
        positions: of all prompts together, images and answers included.
        steps: tokens that are decoded one at a time.
    """

    pixels: float
    num_images: float
    num_cases: float
    positions: float
    steps: float

    def vision_flop(self, facts: ModelFacts) -> float:
        """Operations of the tower."""
        one = vision_flop(facts.shapes, 1024)
        return one * self.pixels / 1024**2

    def language_flop(self, facts: ModelFacts) -> float:
        """Operations of decoder layers and head, attention over positions left out."""
        return 2 * facts.numbers("layers", "head") * (self.positions + self.steps)


def golden_inputs(
    recipe: Recipe, *, max_questions: int = -1, max_images: int | None = None
) -> Inputs:
    """What the goldens hold, or as much of it as a variant is asked.

    Args:
        recipe: what is asked for.
        max_questions: of the task questions; -1 for all.
        max_images: None for all.
    """
    goldens = recipe.goldens
    sizes = () if recipe.targets.coreml is None else recipe.targets.coreml.image_sizes
    tokens = (recipe.image.size // 64) ** 2
    own = goldens.scenes + goldens.photographs + 1  # and a plain one
    own = own if max_images is None else min(own, max_images)
    sized = 2 * len(sizes) if max_images is None else 0
    questions = goldens.task_questions if max_questions < 0 else max_questions
    scenes = questions / QUESTIONS_PER_SCENE
    with_image = goldens.scenes + goldens.photographs
    texts = 2 if goldens.prompts and with_image > 1 else bool(goldens.prompts)
    shown = with_image + (2 if texts == 2 else 0)
    cases = with_image + texts
    steps = cases * goldens.max_new_tokens
    positions = cases * _PROMPT_TOKENS + shown * tokens + steps
    if goldens.fill_context:
        positions += recipe.context_length
    return Inputs(
        pixels=(own + scenes) * recipe.image.size**2 + 2 * sum(size**2 for size in sizes),
        num_images=own + sized,
        num_cases=cases + goldens.fill_context,
        positions=positions + questions * (_PROMPT_TOKENS + tokens),
        steps=steps + questions * _ANSWER_TOKENS,
    )


def calibration_inputs(recipe: Recipe) -> Inputs:
    """What guides quantization; nothing without a `quantization`."""
    if recipe.quantization is None:
        return Inputs(pixels=0, num_images=0, num_cases=0, positions=0, steps=0)
    asked = recipe.quantization.calibration
    images = asked.scenes + asked.photographs
    cases = images + len(asked.prompts)
    tokens = (recipe.image.size // 64) ** 2
    return Inputs(
        pixels=images * recipe.image.size**2,
        num_images=images,
        num_cases=cases,
        positions=cases * _PROMPT_TOKENS + images * tokens,
        steps=0,
    )
