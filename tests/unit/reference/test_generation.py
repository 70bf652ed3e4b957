"""Greedy, sampled and beam decoding behave as `transformers`' `generate` does."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from reference.generation import (
    Generation,
    GenerationError,
    GenerationSettings,
    generate,
    sampling_probabilities,
)

VOCABULARY = 64
EOS = 7


@dataclass
class TableSession:
    """A model whose next logits depend on the last token alone: row t of its table follows t."""

    table: np.ndarray
    prompt: int = 0
    rows: list[list[int]] = field(default_factory=list)
    steps: int = 0

    def start(self) -> np.ndarray:
        self.rows = [[self.prompt]]
        return self.table[[self.prompt]]

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        assert token_ids.dtype == np.int64
        assert len(token_ids) == len(self.rows)
        self.steps += 1
        self.rows = [[*row, int(t)] for row, t in zip(self.rows, token_ids, strict=True)]
        return self.table[token_ids]

    def select(self, rows: np.ndarray) -> None:
        self.rows = [self.rows[row] for row in rows]


class QwenSession:
    """`transformers`' Qwen2 behind the session protocol, without a cache: the plainest truth."""

    def __init__(self, model: Any, prompt: list[int]) -> None:
        self.model = model
        self.rows = [prompt]

    def logits(self) -> np.ndarray:
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor(self.rows), use_cache=False).logits[:, -1]
        return logits.numpy()

    def start(self) -> np.ndarray:
        return self.logits()

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        self.rows = [[*row, int(t)] for row, t in zip(self.rows, token_ids, strict=True)]
        return self.logits()

    def select(self, rows: np.ndarray) -> None:
        self.rows = [self.rows[row] for row in rows]


@pytest.fixture(scope="module")
def qwen2() -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # lively logits: beams split, join and end
    )
    return Qwen2ForCausalLM(config).eval()


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (VOCABULARY, VOCABULARY)).astype(np.float32)


def chain(*tokens: int) -> np.ndarray:
    """A table that leads from token 0 through the given tokens."""
    logits = np.zeros((VOCABULARY, VOCABULARY), dtype=np.float32)
    for last, following in zip((0, *tokens), tokens, strict=False):
        logits[last, following] = 9
    return logits


def decode_with_transformers(model: Any, prompt: list[int], **options: Any) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
    return out[0, len(prompt) :].tolist()


def with_eos(generation: Generation, eos: int) -> list[int]:
    return [*generation.token_ids, *([eos] if generation.finish_reason == "eos" else [])]


def test_greedy_follows_the_largest_logit_until_the_end_token() -> None:
    settings = GenerationSettings(eos_token_ids=(EOS,))
    answer = generate(TableSession(chain(5, 3, 9, EOS, 4)), settings)
    assert answer.token_ids == (5, 3, 9)
    assert answer.finish_reason == "eos"


def test_generation_stops_at_max_new_tokens_without_a_useless_last_step() -> None:
    session = TableSession(chain(5, 3, 9, EOS))
    settings = GenerationSettings(max_new_tokens=2, eos_token_ids=(EOS,))
    answer = generate(session, settings)
    assert answer.token_ids == (5, 3)
    assert answer.finish_reason == "length"
    assert session.steps == 1


def test_an_answer_may_be_empty() -> None:
    settings = GenerationSettings(eos_token_ids=(EOS,))
    answer = generate(TableSession(chain(EOS)), settings)
    assert answer.token_ids == ()
    assert answer.finish_reason == "eos"
    assert answer.tokens_per_second == 0


def test_any_of_several_end_tokens_ends_the_answer() -> None:
    settings = GenerationSettings(eos_token_ids=(60, 9, EOS))
    assert generate(TableSession(chain(5, 9, EOS)), settings).token_ids == (5,)


@pytest.mark.parametrize("beams", [1, 3])
def test_every_token_of_the_answer_is_streamed_once_and_the_end_token_never(beams: int) -> None:
    streamed: list[int] = []
    settings = GenerationSettings(eos_token_ids=(EOS,), num_beams=beams)
    answer = generate(TableSession(chain(5, 3, 9, EOS)), settings, on_token=streamed.append)
    assert tuple(streamed) == answer.token_ids == (5, 3, 9)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 5.0}])
def test_rows_beyond_the_vocabulary_limit_are_never_chosen(options: Any) -> None:
    logits = table()
    logits[:, 50:] += 100
    settings = GenerationSettings(max_new_tokens=40, vocab_limit=50, **options)
    assert max(generate(TableSession(logits), settings).token_ids) < 50
    unlimited = GenerationSettings(max_new_tokens=40, **options)
    assert max(generate(TableSession(logits), unlimited).token_ids) >= 50


def test_padding_rows_that_are_not_finite_do_not_matter() -> None:
    logits = chain(5, EOS)
    logits[:, 50:] = np.nan
    settings = GenerationSettings(vocab_limit=50, eos_token_ids=(EOS,))
    assert generate(TableSession(logits), settings).token_ids == (5,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 5])  # the prompt's logits, a step's logits
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0}])
def test_logits_that_are_not_finite_are_a_clear_error(
    value: float, where: int, options: Any
) -> None:
    logits = chain(5, 3, EOS) * 9
    logits[where, 11] = value
    settings = GenerationSettings(eos_token_ids=(EOS,), **options)
    with pytest.raises(GenerationError, match="logits that are not finite"):
        generate(TableSession(logits), settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must be a number from 0 on"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 on"),
        ({"temperature": float("inf")}, "temperature must be a number from 0 on"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0"),
        ({"temperature": 1.0, "top_p": float("nan")}, "top_p must be above 0"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"vocab_limit": 0}, "vocab_limit must be at least 1"),
        ({"temperature": 1.0, "num_beams": 2}, "exclude each other"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationSettings(**options)


def test_times_are_measured_from_the_start_and_after_the_first_token() -> None:
    answer = generate(TableSession(chain(5, 3, 9, EOS)), GenerationSettings(eos_token_ids=(EOS,)))
    assert answer.time_to_first_token_s > 0
    assert answer.tokens_per_second > 0


def test_sampling_is_repeatable_by_seed_and_differs_between_seeds() -> None:
    def sample(seed: int) -> tuple[int, ...]:
        settings = GenerationSettings(max_new_tokens=30, temperature=2.0, seed=seed)
        return generate(TableSession(table()), settings).token_ids

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) == 5


def test_sampling_draws_each_token_as_often_as_its_probability_says() -> None:
    logits = table()[0]
    expected = sampling_probabilities(logits, temperature=2.0, top_p=0.8)
    draws = [
        generate(
            TableSession(logits[None]),
            GenerationSettings(max_new_tokens=1, temperature=2.0, top_p=0.8, seed=seed),
        ).token_ids[0]
        for seed in range(2000)
    ]
    shares = np.bincount(draws, minlength=VOCABULARY) / len(draws)
    # Four standard deviations of a share over 2000 draws.
    assert (
        np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / 2000) + 1e-12
    ).all()
    assert not shares[expected == 0].any()


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_nucleus_is_the_one_of_transformers(top_p: float, temperature: float) -> None:
    import torch
    from transformers.generation.logits_process import TopPLogitsWarper

    for seed in range(5):
        logits = table(seed)[0]
        scores = torch.from_numpy(logits)[None].double() / temperature
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), scores)
        expected = torch.softmax(scores, dim=-1)[0].numpy()
        ours = sampling_probabilities(logits, temperature=temperature, top_p=top_p)
        np.testing.assert_array_equal(ours > 0, expected > 0)
        # Both are float64; what differs is the order of additions.
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_tiny_temperature_is_greedy_and_a_tiny_nucleus_too() -> None:
    greedy = generate(TableSession(table()), GenerationSettings(max_new_tokens=20)).token_ids
    for options in ({"temperature": 5e-324}, {"temperature": 2.0, "top_p": 1e-9}):
        settings = GenerationSettings(max_new_tokens=20, **options)
        assert generate(TableSession(table()), settings).token_ids == greedy


@pytest.mark.parametrize("prompt", [[1], [5, 9, 2], list(range(20, 40))])
def test_greedy_tokens_equal_transformers(qwen2: Any, prompt: list[int]) -> None:
    expected = decode_with_transformers(
        qwen2, prompt, max_new_tokens=24, do_sample=False, eos_token_id=EOS
    )
    settings = GenerationSettings(max_new_tokens=24, eos_token_ids=(EOS,))
    assert with_eos(generate(QwenSession(qwen2, prompt), settings), EOS) == expected


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 12])
def test_beam_search_tokens_equal_transformers(qwen2: Any, beams: int, length: int) -> None:
    endings = set()
    for start in range(8):
        for eos in ([EOS], [EOS, 11, 30]):
            prompt = [start, start + 20]
            expected = decode_with_transformers(
                qwen2,
                prompt,
                max_new_tokens=length,
                num_beams=beams,
                do_sample=False,
                eos_token_id=eos,
            )
            settings = GenerationSettings(
                max_new_tokens=length, num_beams=beams, eos_token_ids=tuple(eos)
            )
            answer = generate(QwenSession(qwen2, prompt), settings)
            endings.add(answer.finish_reason)
            ended = answer.finish_reason == "eos"
            assert list(answer.token_ids) == (expected[:-1] if ended else expected)
            assert not ended or expected[-1] in eos
    if length == 12:
        assert endings == {"eos", "length"}  # the comparison saw both ways to end


def test_beam_search_differs_from_greedy_where_it_should(qwen2: Any) -> None:
    def decode(start: int, beams: int) -> tuple[int, ...]:
        settings = GenerationSettings(max_new_tokens=12, num_beams=beams)
        return generate(QwenSession(qwen2, [start]), settings).token_ids

    assert any(decode(start, 1) != decode(start, 4) for start in range(5))


def test_beam_search_finds_the_likelier_sequence_behind_a_less_likely_first_token() -> None:
    logits = np.full((VOCABULARY, VOCABULARY), -20, dtype=np.float32)
    logits[0, 1], logits[0, 2] = 0.2, 0.0  # greedy takes 1, after which nothing is certain
    logits[1, 10:60] = 0
    logits[2, 5] = 20  # after 2 the way is clear
    logits[5, EOS] = 20
    session = TableSession(logits)
    settings = GenerationSettings(max_new_tokens=5, num_beams=2, eos_token_ids=(EOS,))
    assert generate(session, settings).token_ids == (2, 5)


def test_beams_may_be_more_than_the_vocabulary_has_tokens() -> None:
    settings = GenerationSettings(max_new_tokens=3, num_beams=9, vocab_limit=4, eos_token_ids=(3,))
    answer = generate(TableSession(table()), settings)
    assert set(answer.token_ids) <= {0, 1, 2}
