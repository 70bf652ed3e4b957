"""The shipped tiny model gives the reference's answers, token for token, when `mlx` computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mlx_helpers import all_in_app, quantize, symmetric, write_mlx

from fastvlm_compile.quantize.source import DequantizedCheckpoint
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.decoding import GenerationSettings
from reference.fastvlm import FastVLM
from reference.loading import build
from reference.preprocess import preprocess
from reference.prompt import build_prompt, encode_prompt, load_tokenizer
from reference.tiny.evaluate import held_out_questions
from validation.answer import answer
from validation.runtimes.mlx_runtime import MlxRuntime, open_mlx

CHECKPOINT = Path(__file__).parents[3] / "recipes" / "tiny-checkpoint"


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return open_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def asked(tiny: Checkpoint) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids [L] and pixels [1, 3, S, S] of three questions and one description."""
    tokenizer = load_tokenizer(CHECKPOINT)
    side = tiny.config.vision.image_size
    prompts = []
    for item in held_out_questions(3, descriptions=1):
        ids = encode_prompt(build_prompt(item.question.text), tokenizer, num_images=1)
        pixels = preprocess(item.scene.image, size=side, fit=tiny.config.image_aspect_ratio)
        prompts.append((ids, pixels[None]))
    return prompts


def settings(tiny: Checkpoint, *, num_beams: int = 1) -> GenerationSettings:
    return GenerationSettings(
        max_new_tokens=24, num_beams=num_beams, eos_token_ids=tiny.config.eos_token_ids
    )


def tokens_of_reference(
    model: FastVLM, prompt: tuple[np.ndarray, np.ndarray], chosen: GenerationSettings
) -> tuple[int, ...]:
    ids, pixels = prompt
    found = model.generate(torch.from_numpy(ids)[None], torch.from_numpy(pixels), settings=chosen)
    return found.token_ids


def tokens_of_mlx(
    runtime: MlxRuntime, prompt: tuple[np.ndarray, np.ndarray], chosen: GenerationSettings
) -> tuple[int, ...]:
    return answer(runtime, *prompt, chosen, context_length=2048).token_ids


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_float16_weights_give_the_tokens_of_the_reference(
    tiny: Checkpoint,
    asked: list[tuple[np.ndarray, np.ndarray]],
    tmp_path: Path,
    compute: str,
) -> None:
    model = build(tiny)
    runtime = open_mlx(
        write_mlx(tiny, None, tmp_path / "out"),
        compute="float32" if compute == "float32" else "float16",
    )
    chosen = settings(tiny)
    answers = {tokens_of_mlx(runtime, prompt, chosen) for prompt in asked}
    assert answers == {tokens_of_reference(model, prompt, chosen) for prompt in asked}
    assert len(answers) > 2, "the questions have different answers"
    blank = (asked[-1][0], np.zeros_like(asked[-1][1]))
    assert tokens_of_mlx(runtime, blank, chosen) != tokens_of_mlx(runtime, asked[-1], chosen)


def test_beam_search_reorders_the_cache_as_the_reference_does(
    tiny: Checkpoint, asked: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    model, chosen = build(tiny), settings(tiny, num_beams=3)
    runtime = open_mlx(write_mlx(tiny, None, tmp_path / "out"))
    assert tokens_of_mlx(runtime, asked[-1], chosen) == tokens_of_reference(
        model, asked[-1], chosen
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_give_the_tokens_of_the_dequantized_reference(
    tiny: Checkpoint, asked: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, bits: int
) -> None:
    weights = quantize(tiny, tmp_path / "quantized", all_in_app(symmetric(bits, 64)))
    model = build(DequantizedCheckpoint(checkpoint=tiny, quantized=weights))
    runtime = open_mlx(write_mlx(tiny, weights, tmp_path / "out"))
    chosen = settings(tiny)
    for prompt in asked:
        assert tokens_of_mlx(runtime, prompt, chosen) == tokens_of_reference(model, prompt, chosen)
