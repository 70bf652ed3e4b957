"""The inputs whose activations guide a quantization: chosen, prepared and kept as files.

A directory of two files: `calibration.json` tells the images and the token ids of every case,
`calibration.safetensors` holds `images/<id>/pixel_values`, float32 [3, S, S] in 0..1.

None of them is among the goldens. Scenes are of seeds that neither training nor goldens use, each
with one of its questions and the right answer after it, so that the decoder sees what it sees when
it answers. Photographs are the last of those there are, goldens take the first.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from reference.errors import UserError
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt
from reference.scenes.scene import training
from validation.photographs import NUM_PHOTOGRAPHS, photographs
from validation.progress import Progress, Steps
from validation.typed_json import read_json, write_json

CALIBRATION_JSON = "calibration.json"
CALIBRATION_ARRAYS = "calibration.safetensors"
SCHEMA = 1

FIRST_SCENE = 950_000_000
"""Scenes for training end some 10^7 before (`reference.tiny.data`), held-out ones begin at 10^9."""


class CalibrationError(UserError):
    """Calibration inputs cannot be made, or are missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class CalibrationCase:
    """A prompt and what is answered, where an answer is known.

    Attributes:
        id: "scene-0", "photo-retina", "text-0".
        image_ids: its images in reading order.
        token_ids: one -200 for each image.
    """

    id: str
    image_ids: tuple[str, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationIndex:
    """Everything in `calibration.json`; `sha256` is of the other file."""

    image_size: int
    image_ids: tuple[str, ...]
    cases: tuple[CalibrationCase, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Opened calibration inputs; images are read one at a time."""

    path: Path
    index: CalibrationIndex

    @property
    def cases(self) -> tuple[CalibrationCase, ...]:
        """All cases, in the order in which they are run."""
        return self.index.cases

    @property
    def digest(self) -> str:
        """Of both files."""
        return hashlib.sha256((self.path / CALIBRATION_JSON).read_bytes()).hexdigest()

    def pixel_values(self, image_id: str) -> npt.NDArray[np.float32]:
        """float32 [3, S, S].

        Raises:
            CalibrationError: the file is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path / CALIBRATION_ARRAYS
        try:
            with safe_open(str(path), framework="numpy") as file:
                pixels: npt.NDArray[np.float32] = file.get_tensor(_array(image_id))
        except (OSError, SafetensorError) as error:
            raise _unusable(f"{path}: damaged: {error}") from None
        size = self.index.image_size
        if pixels.shape != (3, size, size) or pixels.dtype != np.float32:
            raise _unusable(f"{path}: {image_id} is {pixels.dtype} {list(pixels.shape)}")
        return pixels


@dataclass(frozen=True, kw_only=True)
class _Input:
    """One case before it is encoded: its image (None for text alone) and its texts."""

    id: str
    image: Image.Image | None
    question: str
    answer: str = ""


def write_calibration(
    plan: CalibrationPlan, tokenizer: PromptTokenizer, out: Path, progress: Progress
) -> None:
    """Render, collect and write what `plan` asks for; the same plan gives the same bytes.

    Args:
        plan: what to write.
        tokenizer: of the checkpoint.
        out: an empty directory.
        progress: told of every case.

    Raises:
        CalibrationError: nothing is asked for, or photographs that there are not, or photographs
            without a prompt.
    """
    from safetensors.numpy import save_file

    _check_plan(plan)
    steps = Steps(progress, plan.scenes + plan.photographs + len(plan.prompts))
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    cases = []
    for item in _inputs(plan):
        steps.begin(f"case {item.id}")
        image_ids: tuple[str, ...] = ()
        if item.image is not None:
            image_ids = (item.id,)
            pixels = preprocess(item.image, size=plan.image_size, fit=plan.fit)
            arrays[_array(item.id)] = pixels
        token_ids = _encode(item, plan, tokenizer)
        cases.append(CalibrationCase(id=item.id, image_ids=image_ids, token_ids=token_ids))
    save_file({name: arrays[name] for name in sorted(arrays)}, out / CALIBRATION_ARRAYS)
    with (out / CALIBRATION_ARRAYS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    index = CalibrationIndex(
        image_size=plan.image_size,
        image_ids=tuple(image_id for case in cases for image_id in case.image_ids),
        cases=tuple(cases),
        sha256=sha256,
    )
    write_json(out / CALIBRATION_JSON, index, schema=SCHEMA)
    steps.end()


def open_calibration(path: Path) -> Calibration:
    """Open what `write_calibration` wrote.

    Raises:
        CalibrationError: a file is missing, damaged or of another schema.
    """
    index = read_json(path / CALIBRATION_JSON, CalibrationIndex, schema=SCHEMA, error=_unusable)
    if not (path / CALIBRATION_ARRAYS).is_file():
        raise _unusable(f"{path / CALIBRATION_ARRAYS}: there is no such file")
    return Calibration(path=path, index=index)


def _check_plan(plan: CalibrationPlan) -> None:
    if plan.scenes == 0 and plan.photographs == 0:
        raise CalibrationError(
            "the calibration holds no image, so nothing typical of images would be seen",
            hint="set quantization.calibration.scenes or .photographs to at least 1",
        )
    if not 0 <= plan.photographs <= NUM_PHOTOGRAPHS:
        raise CalibrationError(
            f"{plan.photographs} photographs are asked for, there are {NUM_PHOTOGRAPHS}",
            hint=f"set quantization.calibration.photographs to 0..{NUM_PHOTOGRAPHS}",
        )
    if plan.photographs and not plan.prompts:
        raise CalibrationError(
            f"{plan.photographs} calibration photographs and no prompt to ask about them",
            hint="give at least one text in quantization.calibration.prompts",
        )


def _inputs(plan: CalibrationPlan) -> Iterator[_Input]:
    for index in range(plan.scenes):
        scene = training(FIRST_SCENE + index)
        question = scene.questions[index % len(scene.questions)]
        yield _Input(
            id=f"scene-{index}",
            image=scene.image,
            question=question.text,
            answer=question.answer,
        )
    last = photographs(NUM_PHOTOGRAPHS)[::-1][: plan.photographs] if plan.photographs else ()
    for index, photograph in enumerate(last):
        yield _Input(
            id=f"photo-{photograph.name}",
            image=photograph.image,
            question=plan.prompts[index % len(plan.prompts)],
        )
    for index, prompt in enumerate(plan.prompts):
        yield _Input(id=f"text-{index}", image=None, question=prompt)


def _encode(item: _Input, plan: CalibrationPlan, tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """Prompt and answer apart, as in generation: no token reaches across the border."""
    num_images = 0 if item.image is None else 1
    prompt = build_prompt(item.question, image_position=plan.image_position, num_images=num_images)
    ids = encode_prompt(prompt, tokenizer, num_images=num_images)
    return (*(int(token) for token in ids), *tokenizer.encode(item.answer))


def _array(image_id: str) -> str:
    return f"images/{image_id}/pixel_values"


def _unusable(what: str) -> CalibrationError:
    return CalibrationError(what, hint="build again: the stage makes the inputs anew")
