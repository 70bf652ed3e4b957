"""Questions from a bundle's goldens in a form that any consumer can be asked: text and PNG files.

A golden image is kept as it was after preprocessing. That is a square of bytes over 255, so a PNG
of it, given to a consumer, is preprocessed to the same values: nothing is left to resize or pad.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reference.prompt import IMAGE_TOKEN, build_prompt
from validation.golden_file import open_goldens
from validation.goldens import GoldenCase, GoldenContract, Goldens, unusable

CASES_FILE = "cases.json"
_USER = "<|im_start|>user\n"
_END = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, kw_only=True)
class ConsumerCase:
    """One question and the reference's greedy answer.

    Attributes:
        id: "scene-0", "text".
        question: what a user types, without `<image>`.
        prompt: the whole prompt, `<image>` for the image.
        image: a PNG as large as the vision tower's input; None for text alone.
        token_ids: the answer, without its end-of-turn token.
        answer: that as text.
    """

    id: str
    question: str
    prompt: str
    image: Path | None
    token_ids: tuple[int, ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class ConsumerCases:
    """What is asked, and how it was decoded.

    Attributes:
        file: `cases.json`, for drivers: `max_new_tokens`, `eos_token_ids`, `image_size`, and
            `cases` of `id`, `question`, `prompt`, `image` (a file beside it, or null). The
            expected answers are not in it.
        contract: how the reference decoded.
        cases: in the goldens' order.
    """

    file: Path
    contract: GoldenContract
    cases: tuple[ConsumerCase, ...]


def write_cases(bundle: Path, folder: Path, *, num_scenes: int = 4) -> ConsumerCases:
    """Writes the images and `cases.json` of the questions that suit consumers.

    Args:
        bundle: a bundle with goldens.
        folder: to write into; not in the bundle.
        num_scenes: at most so many cases with an image, scenes before photographs; each about one
            image. A case of text alone follows where the goldens have one.

    Raises:
        GoldenError: the bundle has no goldens, damaged ones or none with an image.
    """
    goldens = open_goldens(bundle / "goldens")
    about_one = [case for case in goldens.index.cases if case.generated and _num(case) == 1]
    if not about_one:
        raise unusable(f"{bundle}: its goldens hold no question about one image")
    about_one.sort(key=lambda case: not case.image_ids[0].startswith("scene-"))
    text = [case for case in goldens.index.cases if case.generated and _num(case) == 0]
    chosen = (*about_one[:num_scenes], *text[:1])
    cases = tuple(_written(goldens, case, folder) for case in chosen)
    document = {
        "max_new_tokens": goldens.contract.max_new_tokens,
        "eos_token_ids": goldens.contract.eos_token_ids,
        "image_size": goldens.contract.image_size,
        "cases": [
            {
                "id": case.id,
                "question": case.question,
                "prompt": case.prompt,
                "image": case.image.name if case.image else None,
            }
            for case in cases
        ],
    }
    file = folder / CASES_FILE
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    return ConsumerCases(file=file, contract=goldens.contract, cases=cases)


def _num(case: GoldenCase) -> int:
    return len(case.image_ids)


def _written(goldens: Goldens, case: GoldenCase, folder: Path) -> ConsumerCase:
    image = None
    if case.image_ids:
        image = folder / f"{case.id}.png"
        pixels = goldens.pixel_values(case.image_ids[0]).transpose(1, 2, 0)
        whole = np.rint(pixels * 255)
        assert np.abs(pixels * 255 - whole).max() < 1e-3, "goldens of images with a mean or a std"
        Image.fromarray(whole.astype(np.uint8)).save(image)
    question = _question(case.prompt)
    position = goldens.contract.image_position
    rebuilt = build_prompt(question, image_position=position, num_images=_num(case))
    assert rebuilt == case.prompt, case.id
    return ConsumerCase(
        id=case.id,
        question=question,
        prompt=case.prompt,
        image=image,
        token_ids=case.token_ids,
        answer=case.answer,
    )


def _question(prompt: str) -> str:
    content = prompt.partition(_USER)[2].removesuffix(_END)
    return content.replace(f"{IMAGE_TOKEN}\n", "").replace(IMAGE_TOKEN, "")
