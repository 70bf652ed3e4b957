"""Golden inputs and outputs on disk: what the float32 reference computed, to compare with.

A directory of two files. `goldens.json` tells what there is: the input contract, the model's sizes,
images, cases, task questions, and for every array its shape, dtype and sha256.
`goldens.safetensors` holds the arrays. L positions of the prompt with its images spliced in and G
greedy tokens make N = L + G; logits are kept after the last K of them:

| array | dtype, shape | what |
|---|---|---|
| `images/<id>/pixel_values` | f32 [3, S, S] | preprocessed image, 0..1 |
| `images/<id>/vision_features` | f32 [T, C] | vision tower, before the projector |
| `images/<id>/image_features` | f32 [T, H] | after the projector |
| `images/<id>@<size>/...` | | the same three for images of a further size |
| `embedding/ids`, `embedding/rows` | i64 [n], f32 [n, H] | rows of the embedding table |
| `cases/<id>/prompt_ids` | i64 [P] | one -200 per image |
| `cases/<id>/inputs_embeds` | f32 [N, H] | spliced prompt, then the greedy tokens embedded |
| `cases/<id>/logits` | f32 [K, V] | after the last K of these N positions |
| `tasks/<id>/image` | u8 [h, w, 3] | a rendered scene, not yet preprocessed |

K is N unless N x V is more than `MAX_LOGIT_VALUES`: a large vocabulary would make the file huge.
The directory is complete in itself: it can be taken to another machine (a Mac) and compared there.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from reference.decoding import GenerationSettings
from reference.errors import UserError
from validation.model_shape import ModelShape

GOLDENS_JSON = "goldens.json"
GOLDENS_ARRAYS = "goldens.safetensors"
SCHEMA_VERSION = 2

MAX_LOGIT_VALUES = 4_000_000
"""Kept logits per case: 16 MB of float32, 26 positions of Qwen2's vocabulary."""


class GoldenError(UserError):
    """Goldens are missing, damaged or of another schema."""


@dataclass(frozen=True, kw_only=True)
class GoldenContract:
    """How the inputs were prepared and the answers decoded.

    Attributes:
        image_size, fit, image_position: the input contract.
        max_new_tokens: limit of the greedy answers.
        eos_token_ids: end an answer.
        vocab_limit: ids that the tokenizer knows; logits beyond are not compared.
        reference_dtype: in which the reference computed.
    """

    image_size: int
    fit: Literal["pad", "crop"]
    image_position: Literal["before", "after"]
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    vocab_limit: int
    reference_dtype: str = "float32"

    def greedy(self) -> GenerationSettings:
        """The settings under which the reference answered."""
        return GenerationSettings(
            max_new_tokens=self.max_new_tokens,
            eos_token_ids=self.eos_token_ids,
            vocab_limit=self.vocab_limit,
        )


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One prompt with its images and the reference's greedy answer.

    Attributes:
        id: "scene-0", "photo-chelsea", "text", "two-images".
        prompt: text, `<image>` for each image.
        image_ids: which images, in reading order.
        prompt_length: L.
        first_logit: position of the first kept row of logits.
        token_ids: the answer without its end-of-turn token.
        answer: the answer as text.
        generated: whether the answer is the reference's own. It is not where the prompt only
            fills the context: then only the decoder is looked at.
    """

    id: str
    prompt: str
    image_ids: tuple[str, ...]
    prompt_length: int
    first_logit: int
    token_ids: tuple[int, ...]
    answer: str
    generated: bool


@dataclass(frozen=True, kw_only=True)
class SizedImage:
    """A golden image once more, in another size than the contract's.

    Attributes:
        id: "scene-0@512"; its arrays go by this name.
        size: side of the square, pixels.
    """

    id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class TaskQuestion:
    """A question about a held-out scene.

    Attributes:
        scene_id: whose image `tasks/<scene_id>/image` it is about.
        kind: what is asked for ("colour", "count", ...).
        prompt_ids: the prompt, -200 for the image.
        answer: the only right answer.
        reference_token_ids: what the reference answered.
        reference_answer: that as text.
    """

    scene_id: str
    kind: str
    prompt_ids: tuple[int, ...]
    answer: str
    reference_token_ids: tuple[int, ...]
    reference_answer: str

    def ids(self) -> np.ndarray:
        """The prompt as int64 [P]."""
        return np.array(self.prompt_ids, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """What an array must be."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class GoldenIndex:
    """Everything in `goldens.json`."""

    contract: GoldenContract
    shape: ModelShape
    image_ids: tuple[str, ...]
    sized_images: tuple[SizedImage, ...]
    cases: tuple[GoldenCase, ...]
    questions: tuple[TaskQuestion, ...]
    arrays: Mapping[str, ArrayInfo]

    @property
    def all_image_ids(self) -> tuple[str, ...]:
        """Images in the contract's size, then those of further sizes."""
        return (*self.image_ids, *(image.id for image in self.sized_images))

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Further sizes of images, besides the contract's."""
        return tuple(dict.fromkeys(image.size for image in self.sized_images))


class Goldens:
    """An opened directory of goldens; arrays are read and verified one at a time."""

    def __init__(self, directory: Path, index: GoldenIndex) -> None:
        self.directory = directory
        self.index = index

    @property
    def contract(self) -> GoldenContract:
        """How the inputs were prepared and the answers decoded."""
        return self.index.contract

    @property
    def shape(self) -> ModelShape:
        """The model's sizes."""
        return self.index.shape

    def pixel_values(self, image_id: str) -> np.ndarray:
        """float32 [3, S, S]."""
        return self.array(f"images/{image_id}/pixel_values")

    def vision_features(self, image_id: str) -> np.ndarray:
        """float32 [T, C], before the projector."""
        return self.array(f"images/{image_id}/vision_features")

    def image_features(self, image_id: str) -> np.ndarray:
        """float32 [T, H], after the projector."""
        return self.array(f"images/{image_id}/image_features")

    def prompt_ids(self, case: GoldenCase) -> np.ndarray:
        """int64 [P], one -200 per image."""
        return self.array(f"cases/{case.id}/prompt_ids")

    def inputs_embeds(self, case: GoldenCase) -> np.ndarray:
        """float32 [N, H]: the spliced prompt, then the greedy answer."""
        return self.array(f"cases/{case.id}/inputs_embeds")

    def logits(self, case: GoldenCase) -> np.ndarray:
        """float32 [K, V], after positions `case.first_logit` .. N - 1."""
        return self.array(f"cases/{case.id}/logits")

    def task_image(self, scene_id: str) -> Image.Image:
        """The rendered scene, RGB, not yet preprocessed."""
        return Image.fromarray(self.array(f"tasks/{scene_id}/image"))

    def array(self, name: str) -> np.ndarray:
        """One array by name.

        Raises:
            GoldenError: it is missing or not what was written.
        """
        from safetensors import SafetensorError, safe_open

        path = self.directory / GOLDENS_ARRAYS
        info = self.index.arrays.get(name)
        if info is None:
            raise unusable(f"{path}: there is no array {name}")
        try:
            with safe_open(str(path), framework="numpy") as file:
                array: np.ndarray = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise unusable(f"{path}: damaged: {error}") from None
        found = describe(array)
        if found != info:
            raise unusable(f"{path}: {name} has changed: {_difference(info, found)}")
        return array


def about_first_images(goldens: Goldens, count: int) -> Goldens:
    """The same goldens without all but the first images, and without the cases about others.

    For a runtime that takes minutes for an image. Cases of text alone stay.
    """
    index = goldens.index
    kept = index.image_ids[:count]
    fewer = copy.copy(goldens)
    fewer.index = replace(
        index,
        image_ids=kept,
        cases=tuple(case for case in index.cases if set(case.image_ids) <= set(kept)),
    )
    return fewer


def describe(array: np.ndarray) -> ArrayInfo:
    """Shape, dtype and digest of an array."""
    digest = hashlib.sha256(np.ascontiguousarray(array).data)
    return ArrayInfo(shape=array.shape, dtype=str(array.dtype), sha256=digest.hexdigest())


def unusable(what: str) -> GoldenError:
    """The error for goldens that cannot be used."""
    return GoldenError(what, hint="build again: the golden stage makes them anew")


def _difference(expected: ArrayInfo, found: ArrayInfo) -> str:
    for name in ("shape", "dtype", "sha256"):
        want, have = getattr(expected, name), getattr(found, name)
        if want != have:
            return f"expected {name} {want}, found {have}"
    raise AssertionError("equal descriptions do not differ")
