"""The RMSNorm of the packages is RMSNorm, and survives what float16 cannot square."""

import pytest
import torch
from torch import Tensor

from fastvlm_compile.export.coreml.language.rms_norm import fused_rms_norm
from reference.qwen2 import RMSNorm


def norm_of(size: int) -> RMSNorm:
    norm = RMSNorm(size, 1e-6)
    norm.weight.data = torch.rand(size, generator=torch.Generator().manual_seed(1)) + 0.5
    return norm.requires_grad_(requires_grad=False)


def rows(scale: float, *, outlier: float = 0.0) -> Tensor:
    x = torch.randn(1, 16, 896, generator=torch.Generator().manual_seed(2)) * scale
    if outlier:
        x[..., 5] = outlier
    return x.half().float()


def relative_l2(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def in_float16(x: Tensor) -> Tensor:
    """The fused op on float16 values; what it does inside is not rounded."""
    return fused_rms_norm(norm_of(896), x).half().float()


def written_out_in_float16(x: Tensor) -> Tensor:
    """Every result rounded to float16: what a norm of single ops computes on a device."""
    mean = (x * x).half().float().mean(-1, keepdim=True).half().float()
    scale = torch.rsqrt((mean + 1e-6).half().float()).half().float()
    return (x * scale).half().float() * norm_of(896).weight


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
def test_it_is_rms_norm_at_every_scale(scale: float) -> None:
    norm, x = norm_of(896), rows(scale)
    assert relative_l2(fused_rms_norm(norm, x), norm(x)) <= 1e-6


def test_epsilon_counts_where_the_row_is_small() -> None:
    x = rows(1e-3)
    other = norm_of(896)
    other.eps = 1e-5
    assert relative_l2(fused_rms_norm(other, x), norm_of(896)(x)) > 1e-2


@pytest.mark.parametrize(("scale", "outlier"), [(1.0, 0.0), (100.0, 0.0), (1000.0, 0.0), (1, 6e4)])
def test_in_float16_it_holds_where_a_norm_of_single_ops_does_not(
    scale: float, outlier: float
) -> None:
    x = rows(scale, outlier=outlier)
    expected = norm_of(896)(x)
    assert relative_l2(in_float16(x), expected) <= 5e-4  # one rounding of 2^-11
    if scale > 50 or outlier:
        assert not (relative_l2(written_out_in_float16(x), expected) <= 0.5)


def test_a_row_of_zeros_stays_zero() -> None:
    assert torch.equal(fused_rms_norm(norm_of(896), torch.zeros(1, 1, 896)), torch.zeros(1, 1, 896))
