"""Distances between next-token distributions and between generations."""

import math

import numpy as np
import pytest

from validation.logit_metrics import first_difference, logit_metrics


def sample(seed: int = 0, positions: int = 10, vocab: int = 50) -> np.ndarray:
    return (3 * np.random.default_rng(seed).normal(size=(positions, vocab))).astype(np.float32)


def test_kl_equals_its_definition_on_two_coins():
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    metrics = logit_metrics(np.log(p), np.log(q), vocab_limit=2)
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert metrics.kl_mean == pytest.approx(expected)
    assert metrics.kl_max == pytest.approx(expected)


def test_equal_logits_agree_completely():
    metrics = logit_metrics(sample(), sample(), vocab_limit=50)
    assert (metrics.kl_mean, metrics.kl_max) == (0.0, 0.0)
    assert (metrics.top1_agreement, metrics.top5_agreement) == (1.0, 1.0)
    assert metrics.num_positions == 10


def test_a_constant_added_to_all_logits_changes_no_distribution():
    metrics = logit_metrics(sample(), sample() + np.float32(7), vocab_limit=50)
    assert metrics.kl_max < 1e-9
    assert metrics.top1_agreement == 1.0


def test_rows_beyond_the_tokenizer_do_not_count():
    candidate = sample()
    candidate[:, 40:] = 1e4
    assert logit_metrics(sample(), candidate, vocab_limit=40).kl_max == 0.0
    assert logit_metrics(sample(), candidate, vocab_limit=50).top1_agreement == 0.0


def test_one_flipped_top_token_in_ten_positions_is_counted():
    reference = sample()
    candidate = reference.copy()
    order = np.argsort(-reference[3])
    candidate[3, order[0]], candidate[3, order[1]] = reference[3, order[1]], reference[3, order[0]]
    metrics = logit_metrics(reference, candidate, vocab_limit=50)
    assert metrics.top1_agreement == pytest.approx(0.9)
    assert metrics.top5_agreement == 1.0  # the same five in another order
    assert metrics.kl_max > 1e-3


def test_a_top_token_flip_is_seen_where_psnr_and_cosine_would_pass():
    reference = np.zeros((1, 1000), dtype=np.float32)
    reference[0, :2] = 10.0, 9.99
    candidate = reference.copy()
    candidate[0, :2] = 9.99, 10.0
    assert logit_metrics(reference, candidate, vocab_limit=1000).top1_agreement == 0.0


def test_nan_logits_fail_every_metric_even_when_both_sides_have_them():
    bad = sample()
    bad[2] = np.nan
    for reference, candidate in ((sample(), bad), (bad, sample()), (bad, bad)):
        metrics = logit_metrics(reference, candidate, vocab_limit=50)
        assert math.isnan(metrics.kl_mean)
        assert math.isnan(metrics.kl_max)
        assert metrics.top1_agreement == pytest.approx(0.9)
        assert metrics.top5_agreement <= 0.9 + 1e-12


def test_the_wrong_position_is_far_away():
    reference = sample()
    metrics = logit_metrics(reference, np.roll(reference, 1, axis=0), vocab_limit=50)
    assert metrics.top1_agreement < 0.5
    assert metrics.kl_mean > 1


def test_equal_logits_are_ranked_by_id_on_both_sides():
    flat = np.zeros((2, 50), dtype=np.float32)
    metrics = logit_metrics(flat, flat + 1, vocab_limit=50)
    assert (metrics.top1_agreement, metrics.top5_agreement) == (1.0, 1.0)


def test_three_of_five_top_tokens_in_common_are_three_fifths():
    reference, candidate = np.zeros((1, 50)), np.zeros((1, 50))
    reference[0, [1, 2, 3, 4, 5]] = 5, 4, 3, 2, 1
    candidate[0, [1, 2, 3, 40, 41]] = 5, 4, 3, 2, 1
    assert logit_metrics(reference, candidate, vocab_limit=50).top5_agreement == 0.6


def test_leading_axes_are_positions():
    reference = sample().reshape(2, 5, 50)
    assert logit_metrics(reference, reference, vocab_limit=50).num_positions == 10


@pytest.mark.parametrize("vocab_limit", [0, 51])
def test_a_vocabulary_that_the_logits_do_not_have_is_refused(vocab_limit):
    with pytest.raises(ValueError, match="vocab_limit"):
        logit_metrics(sample(), sample(), vocab_limit=vocab_limit)


@pytest.mark.parametrize(
    ("reference", "candidate", "index"),
    [
        ((1, 2, 3), (1, 2, 3), -1),
        ((), (), -1),
        ((1, 2, 3), (1, 9, 3), 1),
        ((1, 2, 3), (1, 2), 2),
        ((), (5,), 0),
    ],
)
def test_the_first_difference_of_two_generations_is_found(reference, candidate, index):
    assert first_difference(reference, candidate) == index
