"""Greedy answers to many questions at once, by the path that a single answer takes.

`preprocess`, `encode_image`, `build_prompt`, `splice`, greedy decoding with a KV cache. Prompts are
batched with padding on the left, which gives the tokens that `FastVLM.generate` gives one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from reference.fastvlm import FastVLM
from reference.preprocess import preprocess
from reference.prompt import ImagePosition, PromptTokenizer, build_prompt, encode_prompt
from reference.scenes.questions import Question
from reference.scenes.scene import Scene

_BATCH_SIZE = 64
_MAX_NEW_TOKENS = 64  # a description of five things takes about 50


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A held-out scene and one of its questions."""

    scene: Scene
    question: Question


def answer_all(
    model: FastVLM,
    tokenizer: PromptTokenizer,
    asked: Sequence[Asked],
    *,
    blank: bool = False,
    image_position: ImagePosition = "before",
) -> list[str]:
    """Greedy answers, in the order asked; equal to `FastVLM.generate` one by one."""
    features = _encode_scenes(model, asked, blank=blank)
    prompts = []
    for item in asked:
        prompt = build_prompt(item.question.text, image_position=image_position)
        ids = torch.from_numpy(encode_prompt(prompt, tokenizer, num_images=1))[None]
        prompts.append(model.splice(ids, features[item.scene.seed])[0])
    # Batches of like lengths: little padding, and answers of like lengths.
    order = sorted(range(len(asked)), key=lambda index: (_sort_key(asked[index]), index))
    answers = [""] * len(asked)
    for start in range(0, len(order), _BATCH_SIZE):
        chosen = order[start : start + _BATCH_SIZE]
        batch = _decode(model, [prompts[i] for i in chosen], limit=tokenizer.vocab_size)
        for index, answer_ids in zip(chosen, batch, strict=True):
            answers[index] = tokenizer.decode(answer_ids)
    return answers


def _sort_key(item: Asked) -> int:
    return len(item.question.answer)


@torch.inference_mode()
def _encode_scenes(model: FastVLM, asked: Sequence[Asked], *, blank: bool) -> dict[int, Tensor]:
    """Projected features [1, T, H] of each scene by its seed."""
    scenes = list({item.scene.seed: item.scene for item in asked}.values())
    config = model.config
    features: dict[int, Tensor] = {}
    for start in range(0, len(scenes), _BATCH_SIZE):
        chosen = scenes[start : start + _BATCH_SIZE]
        images = [Image.new("RGB", s.image.size) if blank else s.image for s in chosen]
        pixels = [
            torch.from_numpy(
                preprocess(image, size=config.vision.image_size, fit=config.image_aspect_ratio)
            )
            for image in images
        ]
        encoded = model.encode_image(torch.stack(pixels))
        features |= {scene.seed: rows[None] for scene, rows in zip(chosen, encoded, strict=True)}
    return features


@torch.inference_mode()
def _decode(model: FastVLM, prompts: Sequence[Tensor], *, limit: int) -> list[list[int]]:
    """Greedy decoding of prompts [L_i, H], padded on the left; ids at `limit` and on never win."""
    longest = max(len(prompt) for prompt in prompts)
    embeds = torch.stack([torch.nn.functional.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    mask = torch.stack([(torch.arange(longest) >= longest - len(p)).long() for p in prompts])
    eos = torch.tensor(model.config.eos_token_ids)
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    cache = None
    for _ in range(_MAX_NEW_TOKENS):
        logits, cache = model.language(embeds, cache=cache, attention_mask=mask, last_only=True)
        tokens = logits[:, -1, :limit].argmax(-1)
        ended = torch.isin(tokens, eos)
        for row in sorted(open_rows):
            if ended[row]:
                open_rows.discard(row)
            else:
                answers[row].append(int(tokens[row]))
        if not open_rows:
            break
        embeds = model.embed(tokens[:, None])
        mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=1)
    return answers
