"""Task accuracy: questions about held-out scenes, answered greedily, matched exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from reference.generation import generate
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer
from validation.answer import encode_images, splice
from validation.goldens import Goldens, TaskQuestion
from validation.progress import Steps
from validation.runtimes.base import Runtime


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with the candidate's answer, as tokens and as text."""

    question: TaskQuestion
    token_ids: tuple[int, ...]
    answer: str

    @property
    def right(self) -> bool:
        """The candidate's answer is the right one."""
        return is_right(self.answer, self.question)

    @property
    def as_reference(self) -> bool:
        """The candidate's answer is the reference's, token for token."""
        return self.token_ids == self.question.reference_token_ids

    @property
    def reference_right(self) -> bool:
        """The reference's answer is the right one."""
        return is_right(self.question.reference_answer, self.question)


def is_right(answer: str, question: TaskQuestion) -> bool:
    """Exact match; only white space around an answer is forgiven."""
    return answer.strip() == question.answer


ALL_QUESTIONS = -1


def answer_questions(
    runtime: Runtime,
    goldens: Goldens,
    tokenizer: PromptTokenizer,
    steps: Steps,
    *,
    max_questions: int = ALL_QUESTIONS,
) -> tuple[Answered, ...]:
    """Answers the task questions of the goldens, encoding each scene once.

    Args:
        runtime: what computes.
        goldens: with task questions, those about one scene side by side.
        tokenizer: turns answers into text.
        steps: told of every scene.
        max_questions: the first so many alone, or all of them.

    Raises:
        GenerationError: the runtime gives logits that are not finite.
    """
    contract = goldens.contract
    answered: list[Answered] = []
    asked = goldens.index.questions
    if max_questions != ALL_QUESTIONS:
        asked = asked[:max_questions]
    for scene_id, questions in groupby(asked, key=lambda q: q.scene_id):
        steps.begin(f"questions about {scene_id}")
        image = goldens.task_image(scene_id)
        pixels = preprocess(image, size=contract.image_size, fit=contract.fit)
        features = encode_images(runtime, pixels[None])
        for question in questions:
            prompt = splice(runtime, question.ids(), features)
            token_ids = generate(runtime.session(prompt), contract.greedy()).token_ids
            text = tokenizer.decode(token_ids)
            answered.append(Answered(question=question, token_ids=token_ids, answer=text))
    return tuple(answered)


def accuracy(right: Sequence[bool]) -> float:
    """Share of right answers.

    Raises:
        ValueError: nothing was asked.
    """
    if not right:
        raise ValueError("accuracy needs at least one question")
    return sum(right) / len(right)
