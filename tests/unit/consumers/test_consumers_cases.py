"""Consumers are asked what the reference was asked; right answers are told from wrong ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.preprocess import load_image, preprocess
from reference.prompt import build_prompt
from validation.consumers.comparing import agreement, judged
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.golden_file import open_goldens, write_goldens
from validation.goldens import GoldenCase, GoldenContract, GoldenError
from validation.model_shape import ModelShape

SIZE = 64
EOS = 9
SHAPE = ModelShape(
    image_size=SIZE,
    num_image_tokens=1,
    vision_channels=4,
    hidden_size=4,
    vocab_size=10,
    num_layers=1,
    num_kv_heads=1,
    head_dim=4,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Goldens alone: two scenes and a photograph, in the order that needs sorting, and text."""
    generator = np.random.default_rng(0)
    names = ("photo-a", "scene-0", "scene-1")
    arrays = {
        f"images/{name}/pixel_values": generator.integers(0, 256, (3, SIZE, SIZE)).astype("f4")
        / np.float32(255)
        for name in names
    }
    asked = {name: (name,) for name in names} | {"text": (), "two-images": names[1:]}
    cases = tuple(
        GoldenCase(
            id=case_id,
            prompt=build_prompt(
                f"What is {case_id}?", image_position="after", num_images=len(images)
            ),
            image_ids=images,
            prompt_length=3,
            first_logit=0,
            token_ids=(1, 2, 3),
            answer="abc",
            generated=True,
        )
        for case_id, images in asked.items()
    )
    folder = tmp_path / "bundle" / "goldens"
    folder.mkdir(parents=True)
    write_goldens(
        folder,
        contract=GoldenContract(
            image_size=SIZE,
            fit="pad",
            image_position="after",
            max_new_tokens=5,
            eos_token_ids=(EOS,),
            vocab_limit=10,
        ),
        shape=SHAPE,
        image_ids=names,
        sized_images=(),
        cases=cases,
        questions=(),
        arrays=arrays,
    )
    return tmp_path / "bundle"


def _cases(bundle: Path, **options: int) -> ConsumerCases:
    folder = bundle.parent / "cases"
    folder.mkdir()
    return write_cases(bundle, folder, **options)


def test_scenes_come_first_one_image_each_and_then_text(bundle: Path) -> None:
    cases = _cases(bundle, num_scenes=2)
    assert [case.id for case in cases.cases] == ["scene-0", "scene-1", "text"]
    assert [case.question for case in cases.cases] == [
        "What is scene-0?",
        "What is scene-1?",
        "What is text?",
    ]


def test_the_image_file_is_preprocessed_to_the_golden_values(bundle: Path) -> None:
    goldens = open_goldens(bundle / "goldens")
    for case in _cases(bundle).cases:
        if case.image is not None:
            pixels = preprocess(load_image(case.image), size=SIZE, fit="pad")
            np.testing.assert_array_equal(pixels, goldens.pixel_values(case.id))
            assert Image.open(case.image).size == (SIZE, SIZE)


def test_the_drivers_file_holds_the_questions_and_not_the_answers(bundle: Path) -> None:
    document = json.loads(_cases(bundle, num_scenes=1).file.read_text())
    assert document == {
        "max_new_tokens": 5,
        "eos_token_ids": [EOS],
        "image_size": SIZE,
        "cases": [
            {
                "id": "scene-0",
                "question": "What is scene-0?",
                "prompt": build_prompt("What is scene-0?", image_position="after"),
                "image": "scene-0.png",
            },
            {
                "id": "text",
                "question": "What is text?",
                "prompt": build_prompt("What is text?", num_images=0),
                "image": None,
            },
        ],
    }


def test_a_bundle_without_goldens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GoldenError):
        write_cases(tmp_path, tmp_path)


def _judged(cases: ConsumerCases, answers: dict[str, list[int]], **options: float):
    return judged(cases, answers, consumer="c", version="1", variant="onnx.fp32", **options)


def test_equal_tokens_agree_with_or_without_the_end_of_turn(bundle: Path) -> None:
    cases = _cases(bundle, num_scenes=1)
    outcome = _judged(cases, {"scene-0": [1, 2, 3], "text": [1, 2, 3, EOS]})
    assert outcome.status == "agreed"
    assert outcome.detail.startswith("2 of 2 answers token for token; 100.0% of tokens")


@pytest.mark.parametrize("wrong", [[1, 2], [1, 2, 4], [], [1, 2, 3, 4], [1, 2, 3, EOS, EOS]])
def test_one_wrong_token_too_many_or_too_few_disagrees(bundle: Path, wrong: list[int]) -> None:
    cases = _cases(bundle, num_scenes=1)
    assert _judged(cases, {"scene-0": [1, 2, 3], "text": wrong}).status == "disagreed"


def test_fewer_bits_may_be_asked_for_less(bundle: Path) -> None:
    cases = _cases(bundle, num_scenes=1)
    answers = {"scene-0": [1, 2, 3], "text": [1, 2, 4]}
    assert _judged(cases, answers, min_agreement=0.8).status == "agreed"
    assert _judged(cases, answers, min_agreement=0.9).status == "disagreed"


def test_an_answer_that_is_missing_disagrees(bundle: Path) -> None:
    outcome = _judged(_cases(bundle, num_scenes=1), {"scene-0": [1, 2, 3]}, min_agreement=0)
    assert outcome.status == "disagreed"
    assert outcome.detail == "no answer for text"


def test_agreement_counts_places_of_the_longer_answer() -> None:
    assert agreement([], []) == 1.0
    assert agreement([1, 2], [1]) == 0.5
    assert agreement([1], [1, 2, 3, 4]) == 0.25
