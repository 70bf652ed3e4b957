"""Float32 copies over a scratch file hold the values, and belong to nobody's memory."""

from pathlib import Path

import pytest
import torch

from fastvlm_compile.export import mapped_copy
from fastvlm_compile.export.mapped_copy import mapped_copies


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_copies_are_the_tensors_in_float32(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_copy, "_VALUES_AT_ONCE", 7)
    torch.manual_seed(0)
    tensors = {
        "matrix": torch.randn(5, 9).to(dtype),
        "turned": torch.randn(4, 6).to(dtype).t(),
        "vector": torch.randn(3).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
    }
    copies = mapped_copies(tensors.items(), tmp_path / "scratch")
    assert list(copies) == list(tensors)
    for name, tensor in tensors.items():
        assert copies[name].dtype == torch.float32
        assert copies[name].is_contiguous()
        assert torch.equal(copies[name], tensor.float()), name


def test_they_outlive_their_file_and_a_change_to_one_stays_with_it(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    copies = mapped_copies([("a", torch.ones(4)), ("b", torch.ones(4))], scratch)
    before = scratch.read_bytes()
    copies["a"].zero_()
    assert scratch.read_bytes() == before
    scratch.unlink()
    assert torch.equal(copies["a"], torch.zeros(4))
    assert torch.equal(copies["b"], torch.ones(4))


def test_they_are_file_pages_not_memory_of_the_process(tmp_path: Path) -> None:
    """What Linux counts for the mappings themselves: nothing of them is anonymous."""
    scratch = tmp_path / "scratch"
    copies = mapped_copies([("large", torch.ones(2**20))], scratch)
    assert float(copies["large"].sum()) == 2**20  # every page is touched
    text = Path("/proc/self/smaps")
    if not text.exists():
        pytest.skip("the system does not tell of its mappings")
    lines = text.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if str(scratch) in line)
    sizes = dict(line.split(":", 1) for line in lines[start + 1 : start + 23])
    assert int(sizes["Anonymous"].split()[0]) == 0
    assert int(sizes["Rss"].split()[0]) >= 4096
