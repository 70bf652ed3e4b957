"""Calibration inputs: which they are, and the files that hold them."""

from pathlib import Path

import numpy as np
import pytest
from quantize_run_helpers import make_calibration, plan

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.calibration import (
    CALIBRATION_ARRAYS,
    CALIBRATION_JSON,
    FIRST_SCENE,
    CalibrationError,
    open_calibration,
    write_calibration,
)
from reference.prompt import IMAGE_SENTINEL, build_prompt, encode_prompt, load_tokenizer
from reference.scenes.scene import HELD_OUT_SEED, training
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.photographs import NUM_PHOTOGRAPHS


def test_the_same_plan_gives_the_same_bytes_and_another_does_not(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    one = make_calibration(random_checkpoint, tmp_path / "one")
    two = make_calibration(random_checkpoint, tmp_path / "two")
    other = make_calibration(random_checkpoint, tmp_path / "other", scenes=2)
    for name in (CALIBRATION_JSON, CALIBRATION_ARRAYS):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()
        assert (one.path / name).read_bytes() != (other.path / name).read_bytes()
    assert one.digest == two.digest != other.digest


def test_a_scene_is_a_question_and_its_right_answer(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(random_checkpoint)
    calibration = make_calibration(random_checkpoint, tmp_path / "made", scenes=8)
    for index, case in enumerate(calibration.cases[:8]):
        scene = training(FIRST_SCENE + index)
        question = scene.questions[index % len(scene.questions)]
        prompt = list(encode_prompt(build_prompt(question.text), tokenizer))
        assert list(case.token_ids) == prompt + tokenizer.encode(question.answer)
        assert case.token_ids.count(IMAGE_SENTINEL) == len(case.image_ids) == 1
    texts = [case for case in calibration.cases if case.id.startswith("text-")]
    assert len(texts) == 1
    assert IMAGE_SENTINEL not in texts[0].token_ids


def test_no_image_is_among_the_goldens_or_the_training_scenes(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    half = NUM_PHOTOGRAPHS // 2
    calibration = make_calibration(
        random_checkpoint, tmp_path / "made", scenes=0, photographs=NUM_PHOTOGRAPHS - half
    )
    goldens = golden_inputs(
        GoldenPlan(
            image_size=128,
            fit="pad",
            image_position="before",
            scenes=0,
            photographs=half,
            prompts=("Describe the image.",),
            max_new_tokens=1,
            task_questions=0,
        )
    )
    ours = set(calibration.index.image_ids)
    assert len(ours) == NUM_PHOTOGRAPHS - half
    assert not ours & set(goldens.images)
    # The trainer takes scenes below 900 million and the rest of a batch that begins there.
    assert FIRST_SCENE > 900_000_000 + 1_000_000
    assert FIRST_SCENE + 1_000_000 < HELD_OUT_SEED


def test_pixels_are_of_the_plans_size_and_range(random_checkpoint: Path, tmp_path: Path) -> None:
    calibration = make_calibration(random_checkpoint, tmp_path / "made", image_size=192)
    assert len(calibration.index.image_ids) == 4
    for image_id in calibration.index.image_ids:
        pixels = calibration.pixel_values(image_id)
        assert pixels.shape == (3, 192, 192)
        assert pixels.dtype == np.float32
        assert 0 <= pixels.min() < pixels.max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenes": 0, "photographs": 0}, "no image"),
        ({"photographs": NUM_PHOTOGRAPHS + 1}, "photographs are asked for"),
        ({"prompts": ()}, "no prompt"),
    ],
)
def test_a_plan_that_cannot_be_met_is_refused(
    random_checkpoint: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(CalibrationError, match=words) as caught:
        write_calibration(plan(**changes), load_tokenizer(random_checkpoint), tmp_path, silent)
    assert "quantization.calibration" in caught.value.hint
    assert not list(tmp_path.glob("calibration.*"))


def test_missing_and_damaged_files_are_refused(random_checkpoint: Path, tmp_path: Path) -> None:
    calibration = make_calibration(random_checkpoint, tmp_path / "made")
    image_id = calibration.index.image_ids[0]
    arrays = calibration.path / CALIBRATION_ARRAYS
    arrays.write_bytes(arrays.read_bytes()[:-1])
    with pytest.raises(CalibrationError, match="damaged"):
        calibration.pixel_values(image_id)
    arrays.unlink()
    with pytest.raises(CalibrationError, match="no such file"):
        open_calibration(calibration.path)
    (calibration.path / CALIBRATION_JSON).write_text("{}")
    with pytest.raises(CalibrationError, match="schema"):
        open_calibration(calibration.path)
