"""A prompt that fills the context to its last position.

Other prompts are short. A rotary table that is wrong far out, a mask that ends too early, or a
cache that is one row too short shows nowhere else.
"""

import numpy as np
import numpy.typing as npt

from reference.errors import UserError
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt

NUM_GIVEN = 8
"""Tokens at the end that stand for an answer, so that they are decoded one by one."""


def filling_ids(
    texts: tuple[str, ...], tokenizer: PromptTokenizer, length: int
) -> npt.NDArray[np.int64]:
    """The ids of texts, repeated in one prompt and cut off where the context ends.

    Args:
        texts: at least one.
        tokenizer: of the checkpoint.
        length: positions of the context.

    Returns:
        int64 [length].

    Raises:
        UserError: the context is shorter than what stands for an answer.
    """
    if length <= NUM_GIVEN:
        raise UserError(
            f"a context of {length} positions is too short for goldens.fill_context",
            hint=f"it takes more than {NUM_GIVEN}",
        )
    question = " ".join(texts)
    num_repeats = 1
    while True:
        prompt = build_prompt(" ".join([question] * num_repeats), num_images=0)
        ids = encode_prompt(prompt, tokenizer, num_images=0)
        if len(ids) >= length:
            return ids[:length]
        num_repeats *= 2
