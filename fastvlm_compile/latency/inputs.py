"""What the phases are timed with: the same for every variant and runtime of a bundle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_compile.bundle.manifest import InputContract
from reference.config import FastVLMConfig, load_config
from reference.prompt import build_prompt, encode_prompt, load_tokenizer
from validation.runtimes.base import Floats, Ids

QUESTION = (
    "Describe the image in a few short sentences, and say which colours and which shapes there are "
    "and where each of them can be seen"
)
"""24 words."""
_SEED = 6


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of one bundle."""

    config: FastVLMConfig
    contract: InputContract
    pixels: Floats
    """[1, 3, S, S] in 0..1, noise: no time depends on what an image shows."""
    prompt_ids: Ids
    """[L] of the question, -200 where the image comes."""

    @property
    def num_prompt_positions(self) -> int:
        """Of the question with its image."""
        return len(self.prompt_ids) - 1 + self.contract.tokens_per_image

    def text_ids(self, length: int) -> Ids:
        """[1, length], drawn over the vocabulary."""
        random = np.random.default_rng(_SEED)
        return random.integers(0, self.config.text.vocab_size, (1, length), dtype=np.int64)


def inputs_of(bundle: Path, contract: InputContract) -> Inputs:
    """Reads a bundle's config and tokenizer.

    Raises:
        UserError: either is missing or damaged.
    """
    size = contract.image_size
    random = np.random.default_rng(_SEED)
    prompt = build_prompt(QUESTION, image_position=contract.image_position, num_images=1)
    return Inputs(
        config=load_config(bundle),
        contract=contract,
        pixels=random.random((1, 3, size, size), dtype=np.float32),
        prompt_ids=encode_prompt(prompt, load_tokenizer(bundle), num_images=1),
    )
