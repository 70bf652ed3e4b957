"""Training batches, each a function of its step alone, rendered ahead in another process."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reference.scenes.questions import DESCRIPTION_KIND, practise
from reference.scenes.scene import Scene, training
from reference.tiny.auxiliary import labels
from reference.tiny.packing import Example, PackedRow, pack
from reference.tokenizer import load_tokenizer

_BATCHES_AHEAD = 6
# Per token: a description has about 25, and it is what teaches the language model to look: every
# word of it stands for something in the image.
_DESCRIPTION_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class _Mix:
    """What is asked about a scene: the share of batches with descriptions, rounds of practice."""

    description_share: float
    rounds_before: int
    rounds_after: int


_DESCRIBING = _Mix(description_share=1.0, rounds_before=0, rounds_after=0)
_COMPARING = _Mix(description_share=0.25, rounds_before=2, rounds_after=0)
_BOTH_ORDERS = _Mix(description_share=0.25, rounds_before=1, rounds_after=2)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What every batch has in common, and when the mix of questions changes.

    First everything is described; from `compare_from_step` on questions that compare all items are
    frequent, from `both_orders_from_step` on they are so with the image after the text too.
    """

    tokenizer_dir: Path
    eos_id: int
    image_size: int
    tokens_per_image: int
    batch_size: int
    seed: int
    compare_from_step: int
    both_orders_from_step: int

    def mix_at(self, step: int) -> _Mix:
        """The mix of questions at `step`."""
        if step >= self.both_orders_from_step:
            return _BOTH_ORDERS
        return _COMPARING if step >= self.compare_from_step else _DESCRIBING


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images uint8 [B, S, S, 3], a packed row of questions for each, labels [B, groups]."""

    images: npt.NDArray[np.uint8]
    rows: tuple[PackedRow, ...]
    labels: npt.NDArray[np.int64]


def make_batch(settings: DataSettings, step: int) -> Batch:
    """The batch of `step`: new scenes every step, the same for the same settings."""
    tokenizer = load_tokenizer(settings.tokenizer_dir)
    rng = np.random.default_rng((settings.seed, step))
    first = (settings.seed * 10_000_000 + step * settings.batch_size) % 900_000_000
    scenes = [
        training(first + index, size=settings.image_size) for index in range(settings.batch_size)
    ]
    mix = settings.mix_at(step)
    # Rows are padded to the longest, so that all scenes of a batch are described or none is.
    describe = mix.description_share == 1.0 or bool(rng.random() < mix.description_share)
    rows = tuple(
        pack(
            _examples(scene, rng, mix, describe=describe),
            tokenizer,
            tokens_per_image=settings.tokens_per_image,
            eos_id=settings.eos_id,
        )
        for scene in scenes
    )
    return Batch(
        images=np.stack([np.asarray(scene.image) for scene in scenes]),
        rows=rows,
        labels=np.stack([labels(scene.layout) for scene in scenes]),
    )


def _examples(
    scene: Scene, rng: np.random.Generator, mix: _Mix, *, describe: bool
) -> list[Example]:
    """Questions with the image before them, then a fixed number with the image after."""
    exact = [question for question in scene.questions if question.kind != DESCRIPTION_KIND]
    after = [exact[int(rng.integers(len(exact)))]]
    for _ in range(mix.rounds_before):
        exact += practise(scene.layout, rng)
    for _ in range(mix.rounds_after):
        after += practise(scene.layout, rng)
    examples = [Example(question=q, image_position="before", weight=1.0) for q in exact]
    if describe:
        description = scene.questions[-1]
        examples.append(
            Example(question=description, image_position="before", weight=_DESCRIPTION_WEIGHT)
        )
    return examples + [Example(question=q, image_position="after", weight=1.0) for q in after]


def batches(settings: DataSettings, *, first_step: int, num_steps: int) -> Iterator[Batch]:
    """Batches of the steps `first_step` to `num_steps`, rendered in one background process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        steps = iter(range(first_step, num_steps))
        pending = deque(
            pool.submit(make_batch, settings, step)
            for _, step in zip(range(_BATCHES_AHEAD), steps, strict=False)
        )
        while pending:
            batch = pending.popleft().result()
            for step in steps:
                pending.append(pool.submit(make_batch, settings, step))
                break
            yield batch
