"""Question -> prompt text -> token ids, in FastVLM's `qwen_2` conversation template.

Sources: `predict.py` and `llava/conversation.py` of apple/ml-fastvlm (image before the text), the
processor of Apple's app (image after the text), LLaVA's -200 sentinel for image positions.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from reference.errors import PromptError
from reference.tokenizer import PromptTokenizer, load_tokenizer, write_tokenizer_json

__all__ = [
    "DEFAULT_SYSTEM",
    "IMAGE_SENTINEL",
    "IMAGE_TOKEN",
    "ImagePosition",
    "PromptTokenizer",
    "build_prompt",
    "encode_prompt",
    "load_tokenizer",
    "write_tokenizer_json",
]

IMAGE_TOKEN = "<image>"
# Stands in the ids where the projected features of one image will be spliced in (LLaVA).
IMAGE_SENTINEL = -200
DEFAULT_SYSTEM = "You are a helpful assistant."

ImagePosition = Literal["before", "after"]


def build_prompt(
    question: str,
    *,
    image_position: ImagePosition = "before",
    num_images: int = 1,
    system: str = DEFAULT_SYSTEM,
) -> str:
    """Puts a question and its images into the `qwen_2` template, ready for the assistant's turn.

    Args:
        question: the user's text. It may place the images itself by holding `<image>` exactly once
            per image; then none is added.
        image_position: `before` writes `<image>` and a newline per image before the text (Apple's
            `predict.py`), `after` writes `<image>` per image right after it (Apple's app).
        num_images: how many images go with the question; 0 asks about text alone.
        system: the system message.

    Raises:
        PromptError: the texts hold another number of `<image>` than images are given.
        ValueError: `image_position` is unknown.
    """
    if image_position not in ("before", "after"):
        raise ValueError(f"unknown image position {image_position!r}; known: before, after")
    if IMAGE_TOKEN in system:
        raise PromptError(f"the system message holds {IMAGE_TOKEN}", hint="remove it")
    placed = question.count(IMAGE_TOKEN)
    if placed not in (0, num_images):
        raise PromptError(
            f"the prompt holds {IMAGE_TOKEN} {placed} times; images given: {num_images}",
            hint=f"remove {IMAGE_TOKEN} from the prompt: the images are put in on their own",
        )
    content = question
    if placed == 0 and image_position == "before":
        content = f"{IMAGE_TOKEN}\n" * num_images + question
    elif placed == 0:
        content = question + IMAGE_TOKEN * num_images
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{content}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def encode_prompt(
    prompt: str, tokenizer: PromptTokenizer, *, num_images: int | None = None
) -> npt.NDArray[np.int64]:
    """Turns prompt text into ids, one `IMAGE_SENTINEL` (-200) for each `<image>`.

    Args:
        prompt: text from `build_prompt` (special tokens in it are recognised).
        tokenizer: from `load_tokenizer`.
        num_images: when given, the number of `<image>` that the prompt must hold.

    Returns:
        int64 [L]; L counts each image as one position.

    Raises:
        PromptError: the prompt holds another number of images, or text that is not Unicode.
    """
    chunks = prompt.split(IMAGE_TOKEN)
    if num_images is not None and len(chunks) - 1 != num_images:
        raise PromptError(
            f"the prompt holds {IMAGE_TOKEN} {len(chunks) - 1} times; images given: {num_images}"
        )
    ids = tokenizer.encode(chunks[0])
    for chunk in chunks[1:]:
        ids += [IMAGE_SENTINEL, *tokenizer.encode(chunk)]
    return np.asarray(ids, dtype=np.int64)
