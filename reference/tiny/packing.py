"""Many questions about one image in one sequence: they share the prefix and do not see each other.

Row of a batch: the prompt up to the image, the image, then a segment per question that continues
right after the image (or, for a question before its image, right after the prefix). Positions and
attention are those of each question's own prompt, so that training sees exactly what `generate`
will compute, at a fraction of its cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference.prompt import IMAGE_SENTINEL, ImagePosition, build_prompt, encode_prompt
from reference.qwen2 import Qwen2, rotary_embedding
from reference.scenes.questions import Question
from reference.tokenizer import PromptTokenizer

Ids = npt.NDArray[np.int64]

_PADDING_SEGMENT = -1


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question to be asked with its image before or after it; `weight` scales its loss."""

    question: Question
    image_position: ImagePosition
    weight: float


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """One image's questions, L positions in all, A of them followed by an answer token.

    Attributes:
        input_ids: [L], -200 at image positions.
        position_ids: [L], of each question's own prompt.
        segment: [L], 0 for the shared prefix, then one number per question.
        visible: [L], how many prefix positions a position may attend to.
        answer_at: [A] positions whose next token is `answer_ids` [A], weighted by `weights` [A].
        num_images: how many times the image occurs in `input_ids`.
    """

    input_ids: Ids
    position_ids: Ids
    segment: Ids
    visible: Ids
    answer_at: Ids
    answer_ids: Ids
    weights: npt.NDArray[np.float32]
    num_images: int


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """One question of a row: `body` continues at position `start`, the answer ends it."""

    body: Ids
    start: int
    answer: Ids
    weight: float


def pack(
    examples: Sequence[Example], tokenizer: PromptTokenizer, *, tokens_per_image: int, eos_id: int
) -> PackedRow:
    """Lay the examples of one image out as one row; they share the prompt up to the image."""
    first = _prompt_ids(replace(examples[0], image_position="before"), tokenizer)
    text = first[: int(np.argmax(first == IMAGE_SENTINEL))]
    image = np.full(tokens_per_image, IMAGE_SENTINEL)
    prefix = np.concatenate([text, image])
    segments = [_segment(example, text, image, tokenizer, eos_id) for example in examples]
    bodies = [segment.body for segment in segments]
    # The token before each answer token: the last ones of a body, which lacks the answer's end.
    ends = len(prefix) + np.cumsum([len(body) for body in bodies])
    answer_at = [
        np.arange(end - len(segment.answer), end)
        for end, segment in zip(ends, segments, strict=True)
    ]
    lengths = [len(prefix), *(len(body) for body in bodies)]
    starts = [len(prefix), *(segment.start for segment in segments)]
    return PackedRow(
        input_ids=np.concatenate([prefix, *bodies]),
        position_ids=np.concatenate(
            [np.arange(len(prefix)), *(s.start + np.arange(len(s.body)) for s in segments)]
        ),
        segment=np.repeat(np.arange(len(lengths)), lengths),
        visible=np.repeat(starts, lengths),
        answer_at=np.concatenate(answer_at),
        answer_ids=np.concatenate([segment.answer for segment in segments]),
        weights=np.concatenate(
            [np.full(len(segment.answer), segment.weight, np.float32) for segment in segments]
        ),
        num_images=1 + sum(example.image_position == "after" for example in examples),
    )


def _segment(
    example: Example, text: Ids, image: Ids, tokenizer: PromptTokenizer, eos_id: int
) -> _Segment:
    """What follows the shared prefix (image before) or its text alone (image after)."""
    prompt = _prompt_ids(example, tokenizer)
    if not np.array_equal(prompt[: len(text)], text):
        raise AssertionError("prompts of one row must share their beginning")
    at = int(np.argmax(prompt == IMAGE_SENTINEL))
    answer = np.asarray([*tokenizer.encode(example.question.answer), eos_id])
    if example.image_position == "before":
        parts, start = [prompt[at + 1 :]], len(text) + len(image)
    else:
        parts, start = [prompt[len(text) : at], image, prompt[at + 1 :]], len(text)
    body = np.concatenate([*parts, answer[:-1]])
    return _Segment(body=body, start=start, answer=answer, weight=example.weight)


def _prompt_ids(example: Example, tokenizer: PromptTokenizer) -> Ids:
    prompt = build_prompt(example.question.text, image_position=example.image_position)
    return encode_prompt(prompt, tokenizer, num_images=1)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Rows padded to one length; shapes are [B, L], answers flat over the batch [A].

    `answer_at` indexes the flattened [B * L] positions; `images_per_row` counts the copies of a
    row's image, the same in all rows.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment: Tensor
    visible: Tensor
    answer_at: Tensor
    answer_ids: Tensor
    weights: Tensor
    images_per_row: int


def collate(rows: Sequence[PackedRow]) -> PackedBatch:
    """Pad rows to the longest; padding is a segment of its own that nobody looks at."""
    length = max(len(row.input_ids) for row in rows)
    counts = {row.num_images for row in rows}
    if len(counts) != 1:
        raise AssertionError("rows of a batch must hold their image equally often")

    def padded(arrays: Sequence[Ids], fill: int) -> Tensor:
        out = np.full((len(arrays), length), fill, dtype=np.int64)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(out)

    starts = [index * length for index in range(len(rows))]
    answer_at = [row.answer_at + start for row, start in zip(rows, starts, strict=True)]
    return PackedBatch(
        input_ids=padded([row.input_ids for row in rows], 0),
        position_ids=padded([row.position_ids for row in rows], 0),
        segment=padded([row.segment for row in rows], _PADDING_SEGMENT),
        visible=padded([row.visible for row in rows], 0),
        answer_at=torch.from_numpy(np.concatenate(answer_at)),
        answer_ids=torch.from_numpy(np.concatenate([row.answer_ids for row in rows])),
        weights=torch.from_numpy(np.concatenate([row.weights for row in rows])),
        images_per_row=counts.pop(),
    )


def attention_mask(batch: PackedBatch) -> Tensor:
    """Where each position may look: its own segment and its share of the prefix, [B, 1, L, L]."""
    index = torch.arange(batch.segment.shape[1])
    causal = index[:, None] >= index
    same = batch.segment[:, :, None] == batch.segment[:, None, :]
    prefix = (batch.segment[:, None, :] == 0) & (index < batch.visible[:, :, None])
    return (causal & (same | prefix))[:, None]


def answer_logits(language: Qwen2, embeds: Tensor, batch: PackedBatch) -> Tensor:
    """Logits [A, V] at the positions that an answer token follows.

    Args:
        language: the model's own layers; only what attends to what is different from its forward.
        embeds: [B, L, D], image features spliced in.
        batch: the rows that `embeds` stands for.
    """
    rotary = rotary_embedding(batch.position_ids, language.config)
    mask = attention_mask(batch)
    x = embeds
    for layer in language.layers:
        x, _ = layer(x, rotary, mask, None)
    answers = x.flatten(0, 1).index_select(0, batch.answer_at)
    logits: Tensor = language.lm_head(language.norm(answers))
    return logits
