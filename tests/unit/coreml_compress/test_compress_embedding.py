"""The quantized embedding table: its rows are the tensor's bit for bit, and only they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compress_helpers import SCHEMES, quantize, rename, with_error, write_quantized
from safetensors.numpy import load_file, save_file

from fastvlm_compile.export.coreml.compress.embedding import (
    check_table,
    compress_embedding,
    write_table,
)
from fastvlm_compile.export.coreml.embedding import export_embedding
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, SchemeError
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS
from reference.checkpoint.tensors import Checkpoint
from validation.runtimes.embedding_table import EmbeddingTable, EmbeddingTableError

FILE = "embedding.safetensors"

PALETTES = [Palette(bits=bits, group_size=0) for bits in (1, 2, 3, 4, 6, 8)]


def rows_quantized(scheme: Quantized, shape: tuple[int, int] = (48, 96)) -> QuantizedTensor:
    return quantize(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), scheme)


@pytest.mark.parametrize("scheme", [*SCHEMES, *PALETTES])
def test_rows_looked_up_are_the_tensors_bit_for_bit(scheme: Quantized, tmp_path: Path) -> None:
    tensor = rows_quantized(scheme)
    table = EmbeddingTable(write_table(tensor, tmp_path / FILE))
    assert table.shape == (48, 96)
    ids = np.array([[0, 47, 5], [5, 8, 7]])
    found = table.look_up(ids)
    assert found.dtype == np.float32
    assert np.array_equal(found, tensor.dequantize()[ids])
    assert not np.array_equal(found[0, 0], found[0, 1])  # negative control: rows differ
    assert np.array_equal(table.look_up(np.empty(0, np.int64)), np.empty((0, 96), np.float32))
    with pytest.raises(EmbeddingTableError, match="the table has 0 to 47"):
        table.look_up(np.array([48]))


def test_an_odd_number_of_zero_points_fills_a_last_byte(tmp_path: Path) -> None:
    tensor = rows_quantized(Affine(bits=4, block_size=32, symmetric=False))  # 3 blocks a row
    path = write_table(tensor, tmp_path / FILE)
    assert load_file(path)["embed_tokens.zero_points"].shape == (48, 2)
    assert np.array_equal(EmbeddingTable(path).look_up(np.arange(48)), tensor.dequantize())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_file_is_as_small_as_the_tensor_and_the_same_in_every_run(
    scheme: Quantized, tmp_path: Path
) -> None:
    tensor = rows_quantized(scheme)
    first, second = (write_table(tensor, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert tensor.size_bytes <= first.stat().st_size <= tensor.size_bytes + 800  # the header


def test_a_row_is_dequantized_without_the_others(tmp_path: Path) -> None:
    """Whatever stands in the other rows: here numbers that would be infinite."""
    tensor = rows_quantized(Affine(bits=4, block_size=16, symmetric=True))
    scales = tensor.scales.copy()
    scales[1:] = np.float16(np.inf)
    path = write_table(tensor, tmp_path / FILE)
    arrays = {**load_file(path), "embed_tokens.scales": scales}
    save_file(arrays, path, metadata=metadata(path))
    with np.errstate(all="raise"):
        found = EmbeddingTable(path).look_up(np.array([0]))
    assert np.array_equal(found[0], tensor.dequantize()[0])


def metadata(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return dict(header["__metadata__"])


def neighbours_scale(arrays: dict[str, np.ndarray]) -> None:
    arrays["embed_tokens.scales"] = np.roll(arrays["embed_tokens.scales"], 1, axis=1)


def zero_point_off_by_one(arrays: dict[str, np.ndarray]) -> None:
    arrays["embed_tokens.zero_points"][3, 0] ^= 1


def nibbles_exchanged(arrays: dict[str, np.ndarray]) -> None:
    codes = arrays["embed_tokens.codes"]
    arrays["embed_tokens.codes"] = (codes >> 4) | (codes << 4)


def tables_permuted(arrays: dict[str, np.ndarray]) -> None:
    arrays["embed_tokens.tables"] = arrays["embed_tokens.tables"][:, ::-1].copy()


def tables_of_other_groups(arrays: dict[str, np.ndarray]) -> None:
    arrays["embed_tokens.tables"] = np.roll(arrays["embed_tokens.tables"], 1, axis=0)


@pytest.fixture(scope="module")
def tables(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with the float table of either precision."""
    half, full = (tmp_path_factory.mktemp("table") for _ in range(2))
    export_embedding(checkpoint, half, silent, precision="float16")
    export_embedding(checkpoint, full, silent, precision="float32")
    return half, full


OFFSETS, LUT = Affine(bits=4, block_size=16, symmetric=False), Palette(bits=4, group_size=8)


@pytest.mark.parametrize(
    ("scheme", "damage"),
    [
        (OFFSETS, neighbours_scale),
        (OFFSETS, zero_point_off_by_one),
        (OFFSETS, nibbles_exchanged),
        (LUT, nibbles_exchanged),
        (LUT, tables_permuted),
        (LUT, tables_of_other_groups),
    ],
)
def test_a_table_that_does_not_read_back_is_refused(
    tmp_path: Path, scheme: Quantized, damage: Callable[[dict[str, np.ndarray]], None]
) -> None:
    tensor = rows_quantized(scheme)
    path = write_table(tensor, tmp_path / FILE)
    check_table(path, tensor)
    arrays = load_file(path)
    damage(arrays)
    save_file(arrays, path, metadata=metadata(path))
    with pytest.raises(ExportError, match="do not read back"):
        check_table(path, tensor)


def no_scales(said: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    del arrays["embed_tokens.scales"]


def unknown_kind(said: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    said["kind"] = "ternary"


def other_bits(said: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    said["bits"] = 8


def no_shape(said: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    del said["shape"]


def float_codes(said: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    arrays["embed_tokens.codes"] = arrays["embed_tokens.codes"].astype(np.float16)


@pytest.mark.parametrize("damage", [no_scales, unknown_kind, other_bits, no_shape, float_codes])
def test_a_damaged_quantized_table_is_a_users_error(
    tmp_path: Path, damage: Callable[[dict[str, object], dict[str, np.ndarray]], None]
) -> None:
    path = write_table(rows_quantized(OFFSETS), tmp_path / FILE)
    said, arrays = json.loads(metadata(path)["quantization"]), load_file(path)
    damage(said, arrays)
    save_file(arrays, path, metadata={"quantization": json.dumps(said)})
    with pytest.raises(EmbeddingTableError, match="not an embedding table"):
        EmbeddingTable(path)


def test_rows_that_end_inside_a_byte_are_the_users_to_change(tmp_path: Path) -> None:
    tensor = rows_quantized(Palette(bits=3, group_size=0), (8, 33))
    with pytest.raises(SchemeError, match="rows of 33 codes of 3 bits are no whole bytes"):
        write_table(tensor, tmp_path / FILE)


def test_the_table_of_a_build_becomes_quantized_or_stays_as_it_is(
    tables: tuple[Path, Path], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantized = write_quantized(checkpoint, {EMBED_TOKENS: OFFSETS}, tmp_path / "tensors")
    expected = quantized.read(EMBED_TOKENS).dequantize()
    files = []
    for folder in tables:
        out = tmp_path / folder.name
        out.mkdir()
        files.append(compress_embedding(folder, quantized, out, silent).read_bytes())
        assert np.array_equal(EmbeddingTable(out / FILE).look_up(np.arange(336)), expected)
        compress_embedding(folder, QuantizedWeights(entries={}, folders={}), out, silent)
        assert (out / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert files[0] == files[1]


def test_an_embedding_that_was_quantized_from_other_rows_is_refused(
    tables: tuple[Path, Path], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    head = write_quantized(checkpoint, {"lm_head.weight": OFFSETS}, tmp_path / "tensors")
    stale = with_error(
        write_quantized(checkpoint, {EMBED_TOKENS: OFFSETS}, tmp_path / "stale"), EMBED_TOKENS, 0.2
    )
    for wrong in (rename(head, "lm_head.weight", EMBED_TOKENS), stale):
        with pytest.raises(ExportError, match="was made from other weights"):
            compress_embedding(tables[0], wrong, tmp_path, silent)
