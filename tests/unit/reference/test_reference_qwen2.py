"""The language model is Qwen2 as `transformers` computes it."""

import pytest
import torch

from reference.config import Qwen2Config
from reference.qwen2 import Qwen2

CONFIG = Qwen2Config(
    vocab_size=131,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    max_position_embeddings=256,
    tie_word_embeddings=False,
)
TOLERANCE = 1e-5
"""The bound the project promises for float32; a wrong rotary base or epsilon is far above it."""


@pytest.fixture(scope="module")
def models() -> tuple[Qwen2, torch.nn.Module]:
    from transformers import Qwen2Config as TheirConfig
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(
        TheirConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.hidden_size,
            intermediate_size=CONFIG.intermediate_size,
            num_hidden_layers=CONFIG.num_hidden_layers,
            num_attention_heads=CONFIG.num_attention_heads,
            num_key_value_heads=CONFIG.num_key_value_heads,
            rope_parameters={"rope_type": "default", "rope_theta": CONFIG.rope_theta},
            rms_norm_eps=CONFIG.rms_norm_eps,
            tie_word_embeddings=False,
        )
    ).eval()
    with torch.no_grad():  # biases, norms and weights all lively
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.ndim == 1) * 0.5)
    ours = Qwen2(CONFIG).eval()
    ours.load_state_dict({k.removeprefix("model."): v for k, v in theirs.state_dict().items()})
    return ours, theirs


@pytest.fixture
def input_ids() -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (2, 23), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_equal_transformers_without_a_cache(models, input_ids) -> None:
    ours, theirs = models
    expected = theirs(input_ids).logits
    actual, _ = ours(ours.embed_tokens(input_ids))
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(22, 1), (7, 9, 7), (1,) * 23])
def test_logits_equal_transformers_with_a_cache(models, input_ids, chunks) -> None:
    ours, theirs = models
    expected = theirs(input_ids).logits
    cache, parts = None, []
    for ids in input_ids.split(list(chunks), dim=1):
        logits, cache = ours(ours.embed_tokens(ids), cache=cache)
        parts.append(logits)
    assert (torch.cat(parts, dim=1) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_left_padding_does_not_change_the_logits_of_real_positions(models, input_ids) -> None:
    ours, _ = models
    embeds = ours.embed_tokens(input_ids)
    alone, _ = ours(embeds[:1, 5:])
    mask = torch.ones_like(input_ids)
    mask[0, :5] = 0
    padded, _ = ours(embeds, attention_mask=mask)
    assert (padded[:1, 5:] - alone).abs().max() <= TOLERANCE


@torch.no_grad()
def test_last_only_gives_the_last_row(models, input_ids) -> None:
    ours, _ = models
    embeds = ours.embed_tokens(input_ids)
    full, _ = ours(embeds)
    last, _ = ours(embeds, last_only=True)
    assert last.shape == (2, 1, CONFIG.vocab_size)
    assert (last[:, 0] - full[:, -1]).abs().max() <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("fault", ["rope_theta", "rms_norm_eps", "position"])
def test_a_small_fault_is_far_above_the_tolerance(models, input_ids, fault) -> None:
    from dataclasses import replace

    ours, theirs = models
    expected = theirs(input_ids).logits
    changed = {"rope_theta": 1e4, "rms_norm_eps": 1e-3}
    config = replace(CONFIG, **{fault: changed[fault]}) if fault in changed else CONFIG
    faulty = Qwen2(config).eval()
    faulty.load_state_dict(ours.state_dict())
    positions = torch.arange(23).expand(2, 23)
    if fault == "position":  # shifting all positions alike would change nothing: rotary is relative
        positions = torch.cat([positions[:, :10], positions[:, 10:] + 1], dim=1)
    actual, _ = faulty(faulty.embed_tokens(input_ids), position_ids=positions)
    assert (actual - expected).abs().max() > 100 * TOLERANCE
