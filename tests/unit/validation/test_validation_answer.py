"""Splicing puts each image where the prompt has its place; answers respect the context."""

import itertools
import time

import numpy as np
import pytest

from reference.decoding import GenerationSettings
from reference.errors import PromptError
from reference.prompt import IMAGE_SENTINEL
from validation.answer import answer, encode_images, splice

HIDDEN, TOKENS, EOS = 4, 2, 9


class Counting:
    """A runtime whose embeddings are the ids, whose images are their own brightness.

    It answers with the number of positions it was given, then with ever larger numbers.
    """

    executor = "counting"
    executed_by_core_ml = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_image(self, pixel_values: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixel_values))
        brightness = pixel_values.mean(axis=(1, 2, 3))[:, None, None]
        return np.broadcast_to(brightness, (len(pixel_values), TOKENS, HIDDEN)).astype(np.float32)

    def embed(self, input_ids: np.ndarray) -> np.ndarray:
        assert (input_ids >= 0).all(), "a sentinel is no token"
        return np.repeat(input_ids[..., None], HIDDEN, axis=-1).astype(np.float32)

    def logits(self, inputs_embeds: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def session(self, inputs_embeds: np.ndarray) -> "Counting":
        self.length = inputs_embeds.shape[1]
        return self

    def start(self) -> np.ndarray:
        return self.row(self.length)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        return self.row(int(token_ids[0]) + 1)

    def select(self, rows: np.ndarray) -> None:
        raise NotImplementedError

    @staticmethod
    def row(token: int) -> np.ndarray:
        return np.eye(32, dtype=np.float32)[[token]]


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def images(*brightness: float) -> np.ndarray:
    return np.stack([np.full((3, 2, 2), value, dtype=np.float32) for value in brightness])


def test_each_image_takes_its_place_in_the_order_of_the_prompt() -> None:
    runtime = Counting()
    features = encode_images(runtime, images(0.25, 0.5))
    spliced = splice(runtime, ids(3, IMAGE_SENTINEL, 5, IMAGE_SENTINEL), features)
    assert spliced.dtype == np.float32
    assert spliced.shape == (1, 6, HIDDEN)
    assert spliced[0, :, 0].tolist() == [3, 0.25, 0.25, 5, 0.5, 0.5]


def test_images_may_follow_each_other_and_stand_first() -> None:
    features = np.arange(2 * TOKENS * HIDDEN, dtype=np.float32).reshape(2, TOKENS, HIDDEN)
    spliced = splice(Counting(), ids(IMAGE_SENTINEL, IMAGE_SENTINEL, 7), features)
    np.testing.assert_array_equal(spliced[0, :4], features.reshape(4, HIDDEN))


def test_text_alone_is_only_embedded() -> None:
    assert splice(Counting(), ids(3, 4), None)[0, :, 0].tolist() == [3, 4]


@pytest.mark.parametrize("brightness", [(), (0.5,), (0.1, 0.2, 0.3)])
def test_another_number_of_images_than_places_is_an_error(brightness: tuple[float, ...]) -> None:
    features = encode_images(Counting(), images(*brightness)) if brightness else None
    with pytest.raises(PromptError, match=f"places for 2 images, but {len(brightness)} are given"):
        splice(Counting(), ids(IMAGE_SENTINEL, 1, IMAGE_SENTINEL), features)


def test_images_are_encoded_one_at_a_time() -> None:
    runtime = Counting()
    encode_images(runtime, images(0.1, 0.2, 0.3))
    assert runtime.batches == [1, 1, 1]


def test_an_answer_sees_prompt_and_image() -> None:
    settings = GenerationSettings(eos_token_ids=(EOS,))
    prompt = ids(3, IMAGE_SENTINEL, 5, 5)
    result = answer(Counting(), prompt, images(0.5), settings, context_length=100)
    assert result.token_ids == (5, 6, 7, 8)  # five positions, then counting on to the end token
    assert result.finish_reason == "eos"
    assert result.time_to_first_token_s > 0


def test_what_happens_behind_the_images_is_not_the_first_tokens_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    runtime = Counting()
    batches: list[list[int]] = []

    def open_decoder() -> None:
        batches.append(list(runtime.batches))
        for _ in range(1000):
            next(clock)

    prompt, settings = ids(3, IMAGE_SENTINEL, 5, 5), GenerationSettings(eos_token_ids=(EOS,))
    result = answer(
        runtime, prompt, images(0.5), settings, context_length=100, after_images=open_decoder
    )
    assert batches == [[1]]
    assert 0 < result.time_to_first_token_s < 1000


def test_an_answer_ends_where_the_context_ends() -> None:
    settings = GenerationSettings(eos_token_ids=(EOS,))
    prompt = ids(3, IMAGE_SENTINEL, 5, 5)
    result = answer(Counting(), prompt, images(0.5), settings, context_length=7)
    assert result.token_ids == (5, 6)
    assert result.finish_reason == "length"


def test_a_prompt_that_fills_the_context_is_an_error() -> None:
    prompt = ids(3, IMAGE_SENTINEL, 5, 5)
    with pytest.raises(PromptError, match=r"takes 5 positions, .* but the context has 5"):
        answer(Counting(), prompt, images(0.5), GenerationSettings(), context_length=5)
