"""On the shipped tiny checkpoint: calibration buys accuracy back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from quantize_run_helpers import INT4, make_calibration

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.calibration import Calibration
from fastvlm_compile.quantize.choice import Choice, Method
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.run import quantize_checkpoint
from fastvlm_compile.quantize.source import DequantizedCheckpoint
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.loading import build
from reference.preprocess import preprocess
from reference.prompt import build_prompt, encode_prompt, load_tokenizer
from reference.scenes.scene import held_out
from validation.logit_metrics import logit_metrics

TINY = Path(__file__).parents[3] / "recipes" / "tiny-checkpoint"
NUM_SCENES = 12


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("calibration") / "made"
    return make_calibration(TINY, folder, image_size=256, scenes=8, photographs=0)


@pytest.fixture(scope="module")
def prompts() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Embedded held-out questions with their answers, and the reference's logits on them."""
    tokenizer = load_tokenizer(TINY)
    model = build(open_checkpoint(TINY))
    found = []
    for index in range(NUM_SCENES):
        scene = held_out(index)
        question = scene.questions[index % len(scene.questions)]
        ids = list(encode_prompt(build_prompt(question.text), tokenizer))
        ids += tokenizer.encode(question.answer)
        pixels = torch.from_numpy(preprocess(scene.image, size=256, fit="pad"))[None]
        with torch.inference_mode():
            embeds = model.prompt_embeds(torch.tensor([ids]), pixels)
            found.append((embeds, model.language(embeds)[0]))
    return found


def divergences(
    checkpoint: Checkpoint,
    calibration: Calibration,
    prompts: list[tuple[torch.Tensor, torch.Tensor]],
    out: Path,
) -> Iterator[float]:
    """Mean KL of the language model at int4 block 32, by rounding to nearest and by GPTQ."""
    vocab_limit = load_tokenizer(TINY).vocab_size
    methods: tuple[Method, ...] = ("round_to_nearest", "gptq")
    for method in methods:
        choices = {
            name: Choice(scheme=INT4, method=method)
            for name, info in checkpoint.tensors.items()
            if role_of(name, info.shape) in ("language", "head")
        }
        quantized = quantize_checkpoint(checkpoint, choices, calibration, out / method, silent)
        language = build(DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)).language
        with torch.inference_mode():
            pairs = [(logits, language(embeds)[0]) for embeds, logits in prompts]
        yield float(
            np.mean(
                [
                    logit_metrics(a.numpy(), b.numpy(), vocab_limit=vocab_limit).kl_mean
                    for a, b in pairs
                ]
            )
        )


def test_gptq_on_few_scenes_is_closer_than_rounding_to_nearest(
    calibration: Calibration, prompts: list[tuple[torch.Tensor, torch.Tensor]], tmp_path: Path
) -> None:
    plain, calibrated = divergences(open_checkpoint(TINY), calibration, prompts, tmp_path)
    print(f"KL of int4 block 32: to nearest {plain:.5f}, gptq {calibrated:.5f}")
    assert 0 < calibrated < 0.8 * plain
