"""The search for a better scale: never worse than rounding, close to the best there is."""

import numpy as np
import pytest

from fastvlm_compile.quantize.affine import round_to_nearest, search
from fastvlm_compile.quantize.scheme import Affine, SchemeError, symmetric_zero_point
from fastvlm_compile.quantize.tensor import QuantizedTensor

SHAPES = [(9, 96), (6, 200), (4, 33, 3, 3), (1, 1), (3, 5)]
SCHEMES = [
    Affine(bits=bits, block_size=block, symmetric=symmetric)
    for bits in (4, 8)
    for block in (0, 32, 128)
    for symmetric in (True, False)
]


def made_up(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * 0.02).astype(np.float32)


def block_errors(
    weight: np.ndarray, quantized: QuantizedTensor, importance: np.ndarray | None = None
) -> np.ndarray:
    """Weighted squared error of each block, float64 [O, B]."""
    counts = np.ones(weight.shape[1]) if importance is None else importance.astype(np.float64)
    difference = weight.astype(np.float64) - quantized.dequantize()
    squares = difference.reshape(*weight.shape[:2], -1) ** 2 * counts[:, None]
    block = quantized.scheme.block_size or weight.shape[1]
    starts = range(0, weight.shape[1], block)
    return np.stack([squares[:, s : s + block].sum(axis=(1, 2)) for s in starts], axis=1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_block_errs_more_than_rounded_to_nearest(scheme: Affine, shape: tuple[int, ...]) -> None:
    weight = made_up(*shape)
    found = block_errors(weight, search(weight, scheme))
    plain = block_errors(weight, round_to_nearest(weight, scheme))
    assert (found <= plain * (1 + 1e-6)).all()
    if weight.size > 100:
        assert found.sum() < 0.99 * plain.sum()


def test_it_gains_what_it_is_for() -> None:
    weight = np.random.default_rng(2).standard_normal((256, 128)).astype(np.float32)
    for block, gain in ((32, 0.90), (128, 0.90), (0, 0.90)):
        scheme = Affine(bits=4, block_size=block, symmetric=True)
        found = block_errors(weight, search(weight, scheme)).sum()
        plain = block_errors(weight, round_to_nearest(weight, scheme)).sum()
        assert found < gain * plain


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_is_as_good_as_trying_all_scales_and_zero_points(symmetric: bool) -> None:
    weight = made_up(40, 32, seed=3)
    scheme = Affine(bits=4, block_size=32, symmetric=symmetric)
    found = block_errors(weight, search(weight, scheme))[:, 0]
    plain = block_errors(weight, round_to_nearest(weight, scheme))[:, 0]
    best = np.full(len(weight), np.inf)
    wide = weight.astype(np.float64)
    zeros = [symmetric_zero_point(4)] if symmetric else range(16)
    for ratio in np.linspace(0.3, 1.2, 700):
        for sign in (1, -1) if symmetric else (1,):
            size = np.abs(weight).max(axis=1) / 7.5 * (1 if symmetric else 0.9) * ratio
            scale = (sign * size).astype(np.float16).astype(np.float64)[:, None]
            for zero in zeros:
                steps = np.clip(np.rint(wide / scale) + zero, 0, 15) - zero
                best = np.minimum(best, ((wide - steps * scale) ** 2).sum(axis=1))
    assert found.sum() <= 1.005 * best.sum()
    assert plain.sum() > 1.05 * best.sum()  # the bound means something


def test_what_is_important_errs_less() -> None:
    weight = made_up(64, 128, seed=4)
    importance = np.ones(128, dtype=np.float32)
    importance[::4] = 100
    scheme = Affine(bits=4, block_size=32, symmetric=True)
    aware = block_errors(weight, search(weight, scheme, importance), importance)
    blind = block_errors(weight, search(weight, scheme), importance)
    plain = block_errors(weight, round_to_nearest(weight, scheme), importance)
    assert aware.sum() < 0.95 * blind.sum()
    assert (aware <= plain * (1 + 1e-6)).all()


def test_importance_that_says_nothing_changes_nothing() -> None:
    weight = made_up(8, 64, seed=5)
    scheme = Affine(bits=4, block_size=32, symmetric=True)
    expected = search(weight, scheme)
    for value in (0.0, 1.0, 1e-30, 3e8):
        same = search(weight, scheme, np.full(64, value, dtype=np.float32))
        assert np.array_equal(same.codes, expected.codes)
        assert np.array_equal(same.scales, expected.scales)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_importance_that_is_none_is_refused(bad: float) -> None:
    importance = np.ones(64, dtype=np.float32)
    importance[3] = bad
    with pytest.raises(SchemeError, match="importance of an input is negative or not finite"):
        search(made_up(2, 64), Affine(bits=4, block_size=32, symmetric=True), importance)


def test_the_same_weight_gives_the_same_bytes_alone_or_among_others() -> None:
    weight = made_up(3000, 128, seed=6)  # more than one thread's share
    scheme = Affine(bits=4, block_size=32, symmetric=False)
    whole, part = search(weight, scheme), search(weight[2500:2600], scheme)
    assert np.array_equal(whole.codes[2500:2600], part.codes)
    assert np.array_equal(whole.scales[2500:2600], part.scales)
    assert np.array_equal(whole.zero_points[2500:2600], part.zero_points)
    assert not np.array_equal(whole.codes[:100], part.codes)


def test_magnitude_does_not_matter() -> None:
    weight = made_up(16, 64, seed=7)
    scheme = Affine(bits=4, block_size=32, symmetric=True)
    expected = search(weight, scheme)
    larger = search(weight * np.float32(2**10), scheme)
    assert np.array_equal(larger.codes, expected.codes)
    assert np.array_equal(larger.scales, expected.scales * np.float16(2**10))
