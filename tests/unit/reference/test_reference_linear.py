"""Linear layers by oneDNN: PyTorch's numbers, and PyTorch itself where oneDNN is no good."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.linear import HAS_ONEDNN, Linear, linear

pytestmark = pytest.mark.skipif(not HAS_ONEDNN, reason="this PyTorch has no oneDNN")


def _given(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, 48, generator=generator).to(dtype)
    weight = torch.randn(32, 48, generator=generator).to(dtype)
    return x, weight, torch.randn(32, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", [(), (1,), (1, 7), (2, 3, 5)])
@pytest.mark.parametrize("biased", [True, False])
def test_any_number_of_rows_gives_what_pytorch_gives(shape: tuple[int, ...], biased: bool) -> None:
    x, weight, bias = _given(*shape)
    chosen = bias if biased else None
    with torch.inference_mode():
        found = linear(x, weight, chosen)
    torch.testing.assert_close(found, F.linear(x, weight, chosen))
    assert found.is_contiguous()


def test_views_are_read_as_they_are() -> None:
    x, weight, bias = _given(6, 4)
    with torch.inference_mode():
        found = linear(x.transpose(0, 1), weight.T.contiguous().T, bias)
    torch.testing.assert_close(found, F.linear(x.transpose(0, 1), weight, bias))


def test_gradients_other_types_and_no_rows_are_pytorchs() -> None:
    layer = Linear(48, 32)
    x, weight, bias = _given(5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        half = _given(5, dtype=torch.bfloat16)
        assert linear(*half).dtype == torch.bfloat16
        assert linear(x[:0], weight, bias).shape == (0, 32)
        with pytest.raises(RuntimeError):
            linear(x, weight[:, :5], bias)


def test_without_inference_mode_it_is_pytorchs_to_the_bit() -> None:
    x, weight, bias = _given(5)
    with torch.no_grad():  # as exporters trace
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert "mkldnn" not in str(torch.jit.trace(Linear(48, 32), x).graph)  # type: ignore[no-untyped-call]
