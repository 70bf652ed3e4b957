"""Variants are called what transformers.js looks for, and are no larger than they are called."""

import math
from pathlib import Path

import pytest

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.variants import (
    VARIANT_SUFFIXES,
    check_variant_bytes,
    variant_suffix,
)
from reference.errors import UserError


def test_suffixes_are_those_of_transformers_js_and_no_two_variants_share_one() -> None:
    assert [variant_suffix(name) for name in ("fp32", "fp16", "int8", "int4")] == [
        "",
        "_fp16",
        "_quantized",
        "_q4",
    ]
    assert len(set(VARIANT_SUFFIXES.values())) == len(VARIANT_SUFFIXES)


def test_a_variant_that_onnx_cannot_hold_is_the_users_error_and_lists_the_others() -> None:
    with pytest.raises(UserError, match="no variant `lut4`") as caught:
        variant_suffix("lut4")
    assert "int4-fast" in (caught.value.hint or "")


def test_files_within_their_bits_pass_and_larger_ones_do_not(tmp_path: Path) -> None:
    files = [tmp_path / "a.onnx", tmp_path / "a.onnx_data"]
    files[0].write_bytes(bytes(100))
    files[1].write_bytes(bytes(500))
    found = check_variant_bytes(files, num_weights=1000, max_bits_per_weight=4.8)
    assert found == 4.8
    with pytest.raises(ExportError, match=r"a\.onnx, a\.onnx_data: 4\.80 bits .* than the 4\.79"):
        check_variant_bytes(files, num_weights=1000, max_bits_per_weight=4.79)


@pytest.mark.parametrize(("weights", "limit"), [(0, 5.0), (1000, math.nan)])
def test_a_limit_that_cannot_be_judged_fails(weights: int, limit: float, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"1")
    with pytest.raises(ExportError):
        check_variant_bytes([tmp_path / "a.onnx"], num_weights=weights, max_bits_per_weight=limit)
