"""The shipped tiny checkpoint: small, accurate on held-out scenes, and blind without its image."""

from pathlib import Path

import pytest
import torch

from reference.fastvlm import FastVLM
from reference.loading import load
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt, load_tokenizer
from reference.tiny.answering import Asked, answer_all
from reference.tiny.evaluate import evaluate, held_out_questions
from reference.tiny.tokenizer import write_tokenizer

CHECKPOINT = Path(__file__).parents[3] / "recipes" / "tiny-checkpoint"
MAX_BYTES = 8_000_000


@pytest.fixture(scope="module")
def model() -> FastVLM:
    return load(CHECKPOINT)


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return load_tokenizer(CHECKPOINT)


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return held_out_questions(500)


def test_the_checkpoint_takes_at_most_8_megabytes() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*")) <= MAX_BYTES


def test_held_out_accuracy_is_at_least_95_percent(
    model: FastVLM, tokenizer: PromptTokenizer, asked: list[Asked]
) -> None:
    evaluation = evaluate(model, tokenizer, asked)
    assert evaluation.overall.questions == 500
    assert evaluation.overall.accuracy >= 0.95
    for kind, score in evaluation.kinds.items():
        assert score.accuracy >= 0.85, kind


def test_a_blank_image_leaves_nothing_but_chance(
    model: FastVLM, tokenizer: PromptTokenizer, asked: list[Asked]
) -> None:
    blank = evaluate(model, tokenizer, asked, blank=True)
    # Two standard deviations of 500 guesses are under 4 points.
    assert blank.overall.accuracy <= blank.overall.chance + 0.04
    for kind, score in blank.kinds.items():
        assert score.accuracy <= score.chance + 0.12, kind


def test_the_image_may_stand_after_the_question(
    model: FastVLM, tokenizer: PromptTokenizer, asked: list[Asked]
) -> None:
    after = evaluate(model, tokenizer, asked[:150], image_position="after")
    assert after.overall.accuracy >= 0.95


def test_batched_answers_equal_those_of_generate(
    model: FastVLM, tokenizer: PromptTokenizer
) -> None:
    asked = held_out_questions(12, descriptions=2)
    batched = answer_all(model, tokenizer, asked)
    for item, answer in zip(asked, batched, strict=True):
        pixels = preprocess(item.scene.image, size=256, fit="pad")
        ids = encode_prompt(build_prompt(item.question.text), tokenizer)
        generation = model.generate(torch.from_numpy(ids)[None], torch.from_numpy(pixels)[None])
        assert generation.finish_reason == "eos"
        assert tokenizer.decode(generation.token_ids) == answer


def test_the_tokenizer_files_are_those_the_trainer_writes(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (CHECKPOINT / path.name).read_bytes(), path.name


def test_layer_scales_are_lively(model: FastVLM) -> None:
    scales = [p for name, p in model.vision.named_parameters() if "layer_scale" in name]
    assert len(scales) == 9  # one per RepMixer block, two per attention block
    assert all(float(scale.abs().mean()) > 0.1 for scale in scales)


def test_coarse_rounding_of_the_weights_hurts(
    model: FastVLM, tokenizer: PromptTokenizer, asked: list[Asked]
) -> None:
    """Otherwise no gate on quantization could ever fail on this model."""
    rounded = load(CHECKPOINT)
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            step = parameter.abs().max() / 3  # 3 bits: -3..3 times the step
            parameter.copy_((parameter / step).round() * step)
    fine = evaluate(model, tokenizer, asked[:60]).overall.accuracy
    assert evaluate(rounded, tokenizer, asked[:60]).overall.accuracy < fine - 0.1
