"""Goldens on disk: complete, equal to the reference, reproducible, and damage is told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvlm_compile.progress import silent
from fastvlm_compile.stages.golden import golden
from reference.decoding import GenerationSettings
from reference.errors import UserError
from reference.prompt import IMAGE_SENTINEL
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import GOLDENS_ARRAYS, GOLDENS_JSON, GoldenError

PLAN = GoldenPlan(
    image_size=128,
    fit="crop",
    image_position="after",
    scenes=1,
    photographs=0,
    prompts=("Describe the image.",),
    max_new_tokens=3,
    task_questions=0,
)


def test_the_goldens_hold_scenes_photographs_text_and_two_images(goldens):
    cases = {case.id: case for case in goldens.index.cases}
    assert list(cases) == [
        "scene-0",
        "scene-1",
        "photo-chelsea",
        "photo-coffee",
        "text",
        "two-images",
    ]
    assert cases["text"].image_ids == ()
    assert cases["two-images"].image_ids == ("scene-0", "scene-1")
    ids = goldens.prompt_ids(cases["two-images"])
    assert np.count_nonzero(ids == IMAGE_SENTINEL) == 2
    assert len(goldens.index.questions) == 7
    assert all(question.answer for question in goldens.index.questions)


def test_arrays_have_the_shapes_that_the_format_promises(goldens):
    shape = goldens.shape
    for image_id in goldens.index.image_ids:
        assert goldens.pixel_values(image_id).shape == (3, 128, 128)
        assert goldens.vision_features(image_id).shape == (4, shape.vision_channels)
        assert goldens.image_features(image_id).shape == (4, shape.hidden_size)
    for case in goldens.index.cases:
        num_positions = case.prompt_length + len(case.token_ids)
        assert goldens.inputs_embeds(case).shape == (num_positions, shape.hidden_size)
        assert goldens.logits(case).shape == (num_positions - case.first_logit, shape.vocab_size)
        images = len(case.image_ids)
        assert case.prompt_length == len(goldens.prompt_ids(case)) + images * (4 - 1)


def test_golden_answers_are_those_of_the_reference(goldens, model):
    for case in goldens.index.cases:
        pixels = [goldens.pixel_values(image_id) for image_id in case.image_ids]
        generation = model.generate(
            torch.from_numpy(goldens.prompt_ids(case))[None],
            torch.from_numpy(np.stack(pixels)) if pixels else None,
            settings=GenerationSettings(
                max_new_tokens=10,
                eos_token_ids=model.config.eos_token_ids,
                vocab_limit=goldens.contract.vocab_limit,
            ),
        )
        assert generation.token_ids == case.token_ids


def test_golden_logits_predict_the_golden_answer(goldens):
    for case in goldens.index.cases:
        rows = goldens.logits(case)[case.prompt_length - 1 - case.first_logit :]
        best = np.argmax(rows[:, : goldens.contract.vocab_limit], axis=1)
        assert tuple(best[: len(case.token_ids)]) == case.token_ids


def test_a_large_vocabulary_keeps_only_the_last_positions(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("validation.golden_run.MAX_LOGIT_VALUES", 336 * 5)
    run_reference(model, tokenizer, golden_inputs(PLAN), tmp_path, silent)
    goldens = open_goldens(tmp_path)
    for case in goldens.index.cases:
        num_positions = case.prompt_length + len(case.token_ids)
        assert goldens.logits(case).shape == (5, 336)
        assert case.first_logit == num_positions - 5


def test_two_runs_write_equal_bytes(model, tokenizer, tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_reference(model, tokenizer, golden_inputs(PLAN), tmp_path / name, silent)
        written.append([(tmp_path / name / f).read_bytes() for f in (GOLDENS_JSON, GOLDENS_ARRAYS)])
    assert written[0] == written[1]


def test_the_stage_writes_goldens_and_reports_progress(random_checkpoint, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, checkpoint / "processor")
    out = tmp_path / "out"
    out.mkdir()
    told = []
    config = GoldenPlan(
        image_size=128,
        fit="pad",
        image_position="before",
        scenes=1,
        photographs=1,
        prompts=("What is it?",),
        max_new_tokens=2,
        task_questions=2,
    )
    golden(
        config,
        {"weights": random_checkpoint, "checkpoint": checkpoint},
        out,
        lambda done, total, what: told.append((done, total, what)),
    )
    assert open_goldens(out).contract.image_size == 128
    assert [done for done, _, _ in told] == list(range(len(told)))
    assert told[-1][0] == told[-1][1]


@pytest.fixture
def copy(golden_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden_directory, tmp_path / "goldens"))


@pytest.mark.parametrize("name", [GOLDENS_JSON, GOLDENS_ARRAYS])
def test_a_missing_file_is_told_by_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(GoldenError, match=name) as caught:
        open_goldens(copy)
    assert "there is no such file" in caught.value.message
    assert caught.value.hint


def test_a_flipped_byte_in_an_array_is_found_when_it_is_read(copy):
    path = copy / GOLDENS_ARRAYS
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content))
    goldens = open_goldens(copy)
    last = max(goldens.index.arrays)  # safetensors stores by type, then by name
    names = [name for name in goldens.index.arrays if name.startswith(("tasks", last[:5]))]
    with pytest.raises(GoldenError, match="has changed: expected sha256"):
        [goldens.array(name) for name in names]


def test_a_truncated_array_file_is_refused(copy):
    path = copy / GOLDENS_ARRAYS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GoldenError, match="damaged"):
        open_goldens(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=1), "expected schema 2, found 1"),
        (lambda d: d.pop("contract"), "missing contract"),
        (lambda d: d["contract"].update(fit="stretch"), "contract.fit: expected 'pad' or 'crop'"),
        (lambda d: d["cases"][0].update(first_logit="0"), "cases[0].first_logit: expected int"),
        (lambda d: d["arrays"].pop("embedding/ids"), "does not belong to goldens.json"),
        (lambda d: d.update(surprise=1), "unknown surprise"),
    ],
)
def test_a_damaged_index_is_told_with_the_place(copy, change, words):
    path = copy / GOLDENS_JSON
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(GoldenError) as caught:
        open_goldens(copy)
    assert words in caught.value.message


def test_an_array_that_does_not_exist_is_told(goldens):
    with pytest.raises(GoldenError, match="there is no array images/unicorn/pixel_values"):
        goldens.pixel_values("unicorn")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"photographs": 1, "prompts": ()}, "no prompt to ask"),
        ({"scenes": 0}, "hold no image"),
        ({"photographs": 99}, "99 photographs are asked for, there are 9"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        golden_inputs(replace(PLAN, **changes))


def test_photographs_have_odd_shapes_and_a_licence():
    from validation.photographs import NUM_PHOTOGRAPHS, photographs

    all_of_them = photographs(NUM_PHOTOGRAPHS)
    ratios = [each.image.width / each.image.height for each in all_of_them]
    assert min(ratios) < 0.5
    assert max(ratios) > 2
    assert all("CC0" in each.licence or "public domain" in each.licence for each in all_of_them)
    assert {each.image.mode for each in all_of_them} == {"RGB", "L"}
    assert photographs(3) == all_of_them[:3]
