"""Packed training rows compute what each question's own prompt would."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference.config import parse_config
from reference.fastvlm import FastVLM
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt, load_tokenizer
from reference.scenes.scene import Scene, training
from reference.tiny.architecture import config_json
from reference.tiny.packing import Example, PackedBatch, answer_logits, collate, pack
from reference.tiny.tokenizer import IMAGE_TOKEN, SPECIAL_TOKENS, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory)
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def model(tokenizer: PromptTokenizer) -> FastVLM:
    torch.manual_seed(0)
    ids = {token: tokenizer.token_id(token) for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)}
    raw = config_json(num_tokens=tokenizer.vocab_size, token_ids=ids)
    return FastVLM(parse_config(raw, source="tiny")).eval()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [training(index, size=32) for index in (1, 2)]


def _examples(scene: Scene) -> list[Example]:
    before = [Example(question=q, image_position="before", weight=1.0) for q in scene.questions]
    after = Example(question=scene.questions[1], image_position="after", weight=0.5)
    return [*before, after]


def _packed(scenes: list[Scene], tokenizer: PromptTokenizer) -> PackedBatch:
    eos = tokenizer.token_id("<|im_end|>")
    return collate([pack(_examples(s), tokenizer, tokens_per_image=16, eos_id=eos) for s in scenes])


@torch.inference_mode()
def _both(
    model: FastVLM, tokenizer: PromptTokenizer, scenes: list[Scene], batch: PackedBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer logits from the packed rows, and from every question's own prompt."""
    features = torch.randn(len(scenes), 16, model.config.text.hidden_size)
    copies = features.repeat_interleave(batch.images_per_row, dim=0)
    packed = answer_logits(model.language, model.splice(batch.input_ids, copies), batch)
    own = []
    for scene, feature in zip(scenes, features, strict=True):
        for example in _examples(scene):
            question = example.question
            prompt = build_prompt(question.text, image_position=example.image_position)
            answer = tokenizer.encode(question.answer)
            ids = torch.tensor([[*encode_prompt(prompt, tokenizer), *answer]])
            logits, _ = model.language(model.splice(ids, feature[None]))
            own.append(logits[0, -len(answer) - 1 :])
    return packed, torch.cat(own)


def test_packed_logits_equal_those_of_each_questions_own_prompt(
    model: FastVLM, tokenizer: PromptTokenizer, scenes: list[Scene]
) -> None:
    packed, own = _both(model, tokenizer, scenes, _packed(scenes, tokenizer))
    torch.testing.assert_close(packed, own, rtol=1e-4, atol=1e-4)  # float32 in another order


def test_questions_that_saw_each_other_would_be_noticed(
    model: FastVLM, tokenizer: PromptTokenizer, scenes: list[Scene]
) -> None:
    batch = _packed(scenes, tokenizer)
    leaking = replace(batch, segment=batch.segment.clamp(max=0))
    packed, own = _both(model, tokenizer, scenes, leaking)
    assert (packed - own).abs().max() > 1e-2


def test_the_loss_falls_on_the_answers_and_their_end_alone(
    tokenizer: PromptTokenizer, scenes: list[Scene]
) -> None:
    eos = tokenizer.token_id("<|im_end|>")
    expected = []
    for scene in scenes:
        for example in _examples(scene):
            expected += [*tokenizer.encode(example.question.answer), eos]
    assert _packed(scenes, tokenizer).answer_ids.tolist() == expected
