"""Weight files: byte for byte those of MILBlob's own writer, for every type that we store."""

from pathlib import Path

import numpy as np
import pytest
from compress_helpers import quantize

from fastvlm_compile.export.coreml.compress.blob_writer import BlobWriter, stored_blob
from fastvlm_compile.export.coreml.compress.elements import Element, floating, signed, unsigned
from fastvlm_compile.export.coreml.compress.encode import check_encodable
from fastvlm_compile.export.coreml.compress.rows import pieces, take_rows
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.packing import pack
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, SchemeError
from validation.runtimes.ml_program.blob import WeightFile
from validation.runtimes.ml_program.types import DType, TensorType

COUNT = 37  # no number of bits makes it whole bytes but 8 and more

UNSIGNED = {
    1: DType.UINT1,
    2: DType.UINT2,
    3: DType.UINT3,
    4: DType.UINT4,
    6: DType.UINT6,
    8: DType.UINT8,
}


def write_all(path: Path) -> list[tuple[int, TensorType, np.ndarray]]:
    """One blob of every type by our writer: offset, type, elements."""
    rng = np.random.default_rng(0)
    written = []

    def put(raw: np.ndarray, element: Element, dtype: DType, values: np.ndarray) -> None:
        offset = writer.write(
            raw.view(np.uint8), element=element.blob, count=COUNT, bits=element.bits
        )
        written.append((offset, TensorType(dtype=dtype, shape=(COUNT,)), values))

    with BlobWriter(path) as writer:
        for bits, dtype in UNSIGNED.items():
            codes = rng.integers(0, 2**bits, COUNT).astype(np.uint8)
            put(pack(codes, bits), unsigned(bits), dtype, codes)
        for bits, dtype in ((4, DType.INT4), (8, DType.INT8)):
            values = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), COUNT).astype(np.int8)
            packed = pack(values.view(np.uint8) & np.uint8(2**bits - 1), bits)
            put(packed, signed(bits), dtype, values)
        halves = rng.standard_normal(COUNT).astype(np.float16)
        put(halves, floating("float16"), DType.FP16, halves)
        wide = rng.standard_normal(COUNT, dtype=np.float32)
        put(wide, floating("float32"), DType.FP32, wide)
    return written


def test_every_type_reads_back_through_a_reader_of_its_own(tmp_path: Path) -> None:
    written = write_all(tmp_path / "weight.bin")
    file = WeightFile(tmp_path / "weight.bin")
    for offset, declared, values in written:
        record = file.check(offset, declared)
        found = file.array(offset, declared)
        assert np.array_equal(found, values), declared
        assert record.size_bytes * 8 - record.padding_bits == COUNT * declared.dtype.bits


def test_the_bytes_are_those_of_milblobs_writer(tmp_path: Path) -> None:
    with quiet_coremltools():
        from coremltools.libmilstoragepython import _BlobStorageWriter

    theirs = _BlobStorageWriter(str(tmp_path / "theirs.bin"))
    for offset, declared, values in write_all(tmp_path / "ours.bin"):
        kind = declared.dtype.value
        if kind in ("fp16", "fp32"):
            name, given = ("fp16", values.view(np.uint16)) if kind == "fp16" else ("float", values)
        else:
            name, given = kind, values
        assert getattr(theirs, f"write_{name}_data")(given) == offset
    del theirs
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "theirs.bin").read_bytes()


def test_a_copied_blob_is_the_same_blob(tmp_path: Path) -> None:
    written = write_all(tmp_path / "first.bin")
    with BlobWriter(tmp_path / "second.bin") as writer:
        for offset, _, _ in reversed(written):
            writer.copy(stored_blob(tmp_path / "first.bin", offset))
        offsets = [writer.copy(stored_blob(tmp_path / "first.bin", at)) for at, _, _ in written]
    file = WeightFile(tmp_path / "second.bin")
    for offset, (_, declared, values) in zip(offsets, written, strict=True):
        assert np.array_equal(file.array(offset, declared), values)


def test_a_blob_is_only_found_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    write_all(path)
    with pytest.raises(ExportError, match="no blob at 0"):
        stored_blob(path, 0)
    with pytest.raises(ExportError, match="the file ends before it"):
        stored_blob(path, path.stat().st_size)


@pytest.mark.parametrize(
    ("scheme", "shape"),
    [
        (Affine(bits=4, block_size=64, symmetric=True), (8, 96)),
        (Affine(bits=4, block_size=16, symmetric=True), (8, 3, 3, 3)),
        (Palette(bits=4, group_size=16), (40, 8)),
    ],
)
def test_what_core_ml_cannot_divide_is_the_users_to_change(
    scheme: Quantized, shape: tuple[int, ...]
) -> None:
    with pytest.raises(SchemeError, match=r"some\.weight: .* divide"):
        check_encodable("some.weight", scheme, shape)
    check_encodable("some.weight", Affine(bits=8, block_size=0, symmetric=True), shape)


@pytest.mark.parametrize(
    "scheme",
    [
        Affine(bits=4, block_size=16, symmetric=False),
        Palette(bits=3, group_size=4, channel_scale=True),
        Palette(bits=2, group_size=0),
    ],
)
def test_rows_of_a_tensor_are_the_rows_of_what_it_means(scheme: Quantized) -> None:
    weight = np.random.default_rng(0).standard_normal((24, 32), dtype=np.float32)
    tensor = quantize(weight, scheme)
    whole = tensor.dequantize()
    assert np.array_equal(take_rows(tensor, 8, 12).dequantize(), whole[8:20])
    assert not np.array_equal(take_rows(tensor, 4, 12).dequantize(), whole[8:20])
    joined = [piece.dequantize() for _, piece in pieces(tensor)]
    assert np.array_equal(np.concatenate(joined), whole)
