"""A quantized name on a file that is as large as before ends the build."""

import pytest

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.shrunk import check_shrunk
from fastvlm_compile.quantize.weights_file import QuantizedEntry

ENTRY = QuantizedEntry(
    scheme=Affine(bits=4, block_size=32, symmetric=True),
    shape=(100, 320),
    method="search",
    relative_error=0.1,
    size_bytes=100 * 320 * 9 // 16,
)


@pytest.fixture
def folders(tmp_path):
    def write(before_bytes: int, after_bytes: int):
        for name, size in (("before", before_bytes), ("after", after_bytes)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "weight.bin").write_bytes(bytes(size))
        return tmp_path / "before", tmp_path / "after"

    return write


def test_a_file_as_small_as_its_tensors_passes(folders):
    check_shrunk(*folders(64_000, ENTRY.size_bytes + 2_000), [ENTRY], bits_before=16)


@pytest.mark.parametrize("after_bytes", [64_000, 32_000])
def test_a_file_that_is_as_large_as_before_or_as_8_bits_is_refused(folders, after_bytes):
    with pytest.raises(ExportError, match="at most 49%"):
        check_shrunk(*folders(64_000, after_bytes), [ENTRY], bits_before=16)


def test_where_nothing_is_quantized_nothing_must_shrink(folders):
    check_shrunk(*folders(1_000, 1_000), [], bits_before=16)
