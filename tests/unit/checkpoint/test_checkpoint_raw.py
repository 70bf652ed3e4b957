"""Stored bytes are read without PyTorch's help and compared bit for bit."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import reference.checkpoint.raw as raw_module
from reference.checkpoint.raw import RawReader
from reference.checkpoint.storage import scan_file
from reference.errors import CheckpointError

ARRAYS = {
    "x": np.linspace(-1, 1, 30, dtype=np.float16).reshape(5, 6),
    "y": np.linspace(-1, 1, 30, dtype=np.float16).reshape(5, 6),
    "z": np.array(3, dtype=np.int64),
}


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(raw_module, "_BLOCK_BYTES", 8)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_joined_are_the_stored_bytes_in_either_kind_of_file(tmp_path) -> None:
    save_file(ARRAYS, tmp_path / "a.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in ARRAYS.items()}, tmp_path / "a.bin")
    reader = RawReader(tmp_path)
    for file in ("a.safetensors", "a.bin"):
        for name, info in scan_file(tmp_path / file).items():
            blocks = list(reader.blocks(info))
            assert b"".join(blocks) == ARRAYS[name].tobytes()
            assert all(len(block) <= 8 for block in blocks)
            assert info.size_bytes == ARRAYS[name].nbytes


@pytest.mark.usefixtures("small_blocks")
def test_equal_means_the_same_bits_dtype_and_shape(tmp_path) -> None:
    changed = ARRAYS["x"].copy()
    changed[-1, -1] = np.nextafter(changed[-1, -1], np.float16(2))
    arrays = ARRAYS | {
        "changed": changed,
        "flat": ARRAYS["x"].reshape(30),
        "wide": ARRAYS["x"].astype(np.float32),
    }
    save_file(arrays, tmp_path / "a.safetensors")
    infos = scan_file(tmp_path / "a.safetensors")
    reader = RawReader(tmp_path)
    assert reader.equal(infos["x"], infos["y"])
    for other in ("changed", "flat", "wide"):
        assert not reader.equal(infos["x"], infos[other])


def test_a_file_that_shrinks_after_it_was_scanned_is_told(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS, path)
    infos = scan_file(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="ends inside tensor 'y'"):
        list(RawReader(tmp_path).blocks(infos["y"]))
