"""What does not fit a bundle's context is left out and said; what will be timed is foreseen."""

from dataclasses import replace

import numpy as np
import pytest

from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.latency.inputs import Inputs
from fastvlm_compile.latency.phases import Stopwatch, phase_names
from fastvlm_compile.latency.subject import Subject, Weights
from reference.config import load_config
from validation.latency.samples import Settings

SETTINGS = Settings(threads=1, prompt_lengths=(4, 30, 64), min_seconds=0.0, min_runs=2)
PROMPT = 9 + 16
"""Positions of a question of ten ids, one of which stands for sixteen of an image."""


@pytest.fixture(scope="module")
def inputs(random_checkpoint) -> Inputs:
    contract = InputContract(
        image_size=256, fit="pad", image_position="before", context_length=64, tokens_per_image=16
    )
    return Inputs(
        config=load_config(random_checkpoint),
        contract=contract,
        pixels=np.zeros((1, 3, 256, 256), np.float32),
        prompt_ids=np.array([1, -200, *range(8)]),
    )


def within(inputs: Inputs, context_length: int) -> Inputs:
    return replace(inputs, contract=replace(inputs.contract, context_length=context_length))


class _Counting:
    """A session over nothing that knows how many positions it was given."""

    longest = 0

    def __init__(self, embeds: np.ndarray) -> None:
        self.num_positions = embeds.shape[1]

    def start(self) -> np.ndarray:
        _Counting.longest = max(_Counting.longest, self.num_positions)
        return np.zeros((1, 5), np.float32)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        assert token_ids.shape == (1,)
        self.num_positions += 1
        return self.start()

    def select(self, rows: np.ndarray) -> None:
        raise AssertionError(rows)


SUBJECT = Subject(
    executor="none",
    vision=lambda pixels: np.zeros((len(pixels), 16, 8), np.float32),
    project=None,
    embed=lambda ids: np.zeros((*ids.shape, 8), np.float32),
    session=_Counting,
    weights=lambda: Weights(vision=0, projector=0, decoder=0, cache_item=4),
)


@pytest.mark.parametrize(
    ("context_length", "num_new_tokens", "names", "notes"),
    [
        (4096, 60, ["prefill.4", "prefill.30", "prefill.64", "answers"], []),
        (
            64,
            16,
            ["prefill.4", "prefill.30", "answers"],
            ["prefill.64 was left out: the context has 64 positions"],
        ),
        (
            PROMPT + 3,
            16,
            ["prefill.4", "answers"],
            ["prefill.30 was", "prefill.64 was", "an answer has 4 tokens instead of 16: "],
        ),
        (
            PROMPT,
            16,
            ["prefill.4"],
            ["prefill.30 was", "prefill.64 was", "image and question take 25"],
        ),
    ],
)
def test_no_phase_goes_beyond_the_context(
    inputs: Inputs,
    context_length: int,
    num_new_tokens: int,
    names: list[str],
    notes: list[str],
) -> None:
    few = within(inputs, context_length)
    told: list[str] = []
    watch = Stopwatch(few, SETTINGS, num_new_tokens, told.append)
    _Counting.longest = 0
    watch.time_all(SUBJECT)
    watch.time_loads(lambda: SUBJECT)
    assert _Counting.longest <= context_length
    answers = ["decode", "time_to_first_token", "end_to_end"]
    expected = [each for name in names for each in (answers if name == "answers" else [name])]
    assert [name for name in phase_names(few, SETTINGS) if name not in told] == (
        ["time_to_first_token"] if "answers" in names else []  # told with `end_to_end`
    )
    assert list(phase_names(few, SETTINGS)) == ["load", "vision", "projector_embedding", *expected]
    assert len(watch.notes) == len(notes)
    assert all(part in note for part, note in zip(notes, watch.notes, strict=True))
