"""Prompt and images -> answer, over any `Runtime`: what `generate` and task accuracy share."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reference.decoding import Generation, GenerationSettings, OnToken
from reference.errors import PromptError
from reference.generation import generate
from reference.prompt import IMAGE_SENTINEL
from validation.runtimes.base import Floats, Ids, Runtime


def encode_images(runtime: Runtime, pixel_values: Floats) -> Floats:
    """[N, 3, S, S] in 0..1 -> [N, T, H], one image at a time to bound the memory."""
    return np.concatenate([runtime.encode_image(image[None]) for image in pixel_values])


def splice(runtime: Runtime, input_ids: Ids, image_features: Floats | None) -> Floats:
    """Embeds a prompt, each image's place (-200) taken by that image's features.

    Args:
        runtime: gives the embeddings of the text.
        input_ids: int64 [L] with one -200 per image.
        image_features: [N, T, H] in the order of the prompt; None for a prompt without images.

    Returns:
        float32 [1, L - N + N * T, H].

    Raises:
        PromptError: the prompt holds another number of images.
    """
    places = np.flatnonzero(input_ids == IMAGE_SENTINEL)
    num_images = 0 if image_features is None else len(image_features)
    if len(places) != num_images:
        raise PromptError(
            f"the prompt has places for {len(places)} images, but {num_images} are given"
        )
    # The text is embedded in one call: a placeholder row stands where an image will come.
    text = runtime.embed(np.where(input_ids == IMAGE_SENTINEL, 0, input_ids)[None])[0]
    pieces, start = [], 0
    for image, place in enumerate(places):
        assert image_features is not None
        pieces += [text[start:place], image_features[image]]
        start = int(place) + 1
    pieces.append(text[start:])
    return np.ascontiguousarray(np.concatenate(pieces)[None], dtype=np.float32)


def answer(
    runtime: Runtime,
    input_ids: Ids,
    pixel_values: Floats | None,
    settings: GenerationSettings,
    *,
    context_length: int,
    on_token: OnToken | None = None,
    after_images: Callable[[], None] | None = None,
) -> Generation:
    """Answers one prompt.

    Args:
        runtime: what computes.
        input_ids: int64 [L] from `encode_prompt`, one -200 per image.
        pixel_values: float32 [N, 3, S, S] in 0..1 in the order of the prompt, None without images.
        settings: how to choose tokens; `max_new_tokens` is cut to what the context has left.
        context_length: positions that prompt and answer may take together.
        on_token: see `generate`.
        after_images: called when the images are encoded, to make room for the decoder and open it.

    Returns:
        The answer; its time to first token counts from here, so the encoding of the images too, but
        not `after_images`.

    Raises:
        PromptError: the prompt fills the context, or holds another number of images.
        GenerationError: the model gives logits that are not finite.
    """
    started = time.perf_counter()
    features = None if pixel_values is None else encode_images(runtime, pixel_values)
    encoding_s = time.perf_counter() - started
    if after_images is not None:
        after_images()
    started = time.perf_counter()
    embeds = splice(runtime, input_ids, features)
    left = context_length - embeds.shape[1]
    if left < 1:
        raise PromptError(
            f"the prompt takes {embeds.shape[1]} positions, images included, but the context has "
            f"{context_length}",
            hint="shorten the prompt or give fewer images",
        )
    settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, left))
    before_s = encoding_s + time.perf_counter() - started
    generation = generate(runtime.session(embeds), settings, on_token=on_token)
    return replace(generation, time_to_first_token_s=before_s + generation.time_to_first_token_s)
