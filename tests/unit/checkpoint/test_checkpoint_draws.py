"""Random draws have the tails, spreads and outliers that quantization meets in trained weights."""

import numpy as np
import pytest

from fastvlm_compile.checkpoint import draws
from fastvlm_compile.checkpoint.draws import Source, channel_scales, heavy_tailed, matrix_blocks

SOURCE = Source(seed=0, name="w")


def kurtosis(values) -> float:
    centred = values.astype(np.float64) - values.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


def whole(**changes):
    arguments = {"std": 0.02, "row_sigma": 0.25} | changes
    return np.concatenate(list(matrix_blocks(SOURCE, (300, 200), **arguments)))


def test_heavy_tails_have_unit_variance_and_the_promised_kurtosis() -> None:
    values = heavy_tailed(SOURCE.generator("values"), (2_000_000,))
    assert values.dtype == np.float32
    assert abs(values.std() - 1) < 0.01
    assert 6.5 < kurtosis(values) < 8.5
    normal = SOURCE.generator("values").standard_normal(2_000_000)
    assert kurtosis(normal) < 3.1, "the negative control"


def test_a_matrix_has_the_asked_scale_whatever_its_spreads() -> None:
    for row_sigma in (0.0, 0.25, 0.5):
        values = whole(row_sigma=row_sigma)
        assert values.shape == (300, 200)
        assert 0.9 < values.std() / 0.02 < 1.1


def test_rows_differ_in_scale_and_outlier_rows_stand_out() -> None:
    factors = np.ones(300, dtype=np.float32)
    factors[17] = 16
    scales = whole(row_factors=factors).std(axis=1)
    assert scales.argmax() == 17
    assert scales[17] / np.median(scales) > 6
    ordinary = np.delete(scales, 17)
    assert 0.15 < np.log(ordinary).std() < 0.4
    assert np.log(whole(row_sigma=0.0, column_sigma=0.0).std(axis=1)).std() < 0.15


def test_centred_rows_pass_no_common_mean_on() -> None:
    assert np.abs(whole(centred=True).sum(axis=1)).max() < 1e-4
    assert np.abs(whole(centred=False).sum(axis=1)).max() > 0.1


def test_blocks_of_any_size_hold_the_same_values(monkeypatch) -> None:
    expected = whole(centred=True)
    monkeypatch.setattr(draws, "_MAX_BLOCK_ELEMENTS", 7 * 200)
    blocks = list(matrix_blocks(SOURCE, (300, 200), std=0.02, row_sigma=0.25, centred=True))
    assert len(blocks) == 43
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_more_rows_leave_the_first_ones_as_they_were() -> None:
    """So the padded vocabulary of the transformers layout starts with Apple's."""
    more = np.concatenate(list(matrix_blocks(SOURCE, (310, 200), std=0.02, row_sigma=0.25)))
    np.testing.assert_array_equal(more[:300], whole())


@pytest.mark.parametrize("other", [Source(seed=1, name="w"), Source(seed=0, name="v")])
def test_another_seed_or_name_draws_other_values(other) -> None:
    mine = SOURCE.generator("values").standard_normal(4)
    assert not np.array_equal(mine, other.generator("values").standard_normal(4))
    assert not np.array_equal(mine, SOURCE.generator("rows").standard_normal(4))
    np.testing.assert_array_equal(mine, SOURCE.generator("values").standard_normal(4))


def test_channel_scales_leave_the_variance_as_it_is() -> None:
    scales = channel_scales(SOURCE.generator("x"), 1000, sigma=0.5)
    assert np.isclose(np.mean(scales**2), 1, rtol=1e-5)
    assert scales.max() / scales.min() > 5
