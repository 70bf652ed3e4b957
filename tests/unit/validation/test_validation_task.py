"""Task accuracy: exact match, one encoding per scene, and blindness is noticed."""

from dataclasses import replace

import numpy as np
import pytest

from validation.goldens import Goldens, TaskQuestion
from validation.progress import Steps
from validation.runtimes.torch_runtime import TorchRuntime
from validation.task import accuracy, answer_questions, is_right

QUESTION = TaskQuestion(
    scene_id="scene-0",
    kind="colour",
    prompt_ids=(1, -200, 2),
    answer="red",
    reference_token_ids=(3,),
    reference_answer="red",
)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("red", True),
        (" red\n", True),
        ("Red", False),
        ("red.", False),
        ("reddish", False),
        ("", False),
    ],
)
def test_only_white_space_around_an_answer_is_forgiven(answer, right):
    assert is_right(answer, QUESTION) is right


def test_accuracy_is_a_share_and_never_of_nothing():
    assert accuracy([True, False, True, True]) == 0.75
    with pytest.raises(ValueError, match="at least one"):
        accuracy([])


class CountingRuntime(TorchRuntime):
    """The reference, counting how often it looks at an image."""

    def __init__(self, model) -> None:
        super().__init__(model)
        self.num_images = 0

    def encode_image(self, pixel_values):
        self.num_images += len(pixel_values)
        return super().encode_image(pixel_values)


def steps():
    return Steps(lambda done, total, what: None, 0)


def test_the_reference_repeats_its_own_answers_and_sees_each_scene_once(goldens, model, tokenizer):
    runtime = CountingRuntime(model)
    answered = answer_questions(runtime, goldens, tokenizer, steps())
    assert len(answered) == 7
    assert [each.answer for each in answered] == [
        q.reference_answer for q in goldens.index.questions
    ]
    assert runtime.num_images == len({q.scene_id for q in goldens.index.questions})


def test_answers_are_right_when_they_equal_the_known_answer(goldens, model, tokenizer):
    questions = tuple(
        replace(q, answer=q.reference_answer.strip()) for q in goldens.index.questions
    )
    spoiled = (replace(questions[0], answer="unicorn"), *questions[1:])
    known = Goldens(goldens.directory, replace(goldens.index, questions=spoiled))
    answered = answer_questions(TorchRuntime(model), known, tokenizer, steps())
    assert [each.right for each in answered] == [False, *[True] * 6]
    assert [each.reference_right for each in answered] == [False, *[True] * 6]


def test_another_image_gives_other_logits(goldens, model):
    runtime = TorchRuntime(model)
    image = goldens.pixel_values("scene-0")[None]
    assert not np.allclose(
        runtime.encode_image(image), runtime.encode_image(np.zeros_like(image)), atol=1e-3
    )
