"""Streamed files are what the safetensors library writes and reads."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from fastvlm_compile.checkpoint.safetensors_writer import (
    TensorSpec,
    file_size_bytes,
    write_safetensors,
)

ARRAYS = {
    "b": np.arange(12, dtype=np.float16).reshape(3, 4),
    "a": np.arange(5, dtype=np.float32),
    "count": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float16),
}
SPECS = [
    TensorSpec(name=name, dtype=str(array.dtype), shape=array.shape)
    for name, array in ARRAYS.items()
]
METADATA = {"format": "pt"}


def blocks_of(spec):
    """A few bytes at a time, as a stream comes."""
    data = ARRAYS[spec.name].tobytes()
    return (data[i : i + 5] for i in range(0, len(data), 5))


def test_the_library_reads_back_what_was_streamed(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, SPECS, blocks_of, metadata=METADATA)
    loaded = load_file(path)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_the_bytes_are_the_librarys_own(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, SPECS, blocks_of, metadata=METADATA)
    assert path.read_bytes() == save(ARRAYS, metadata=METADATA)


def test_the_size_is_known_before_writing_and_the_data_is_aligned(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, SPECS, blocks_of, metadata=METADATA)
    assert path.stat().st_size == file_size_bytes(SPECS, METADATA)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for spec in SPECS:
        assert header[spec.name]["data_offsets"][0] % ARRAYS[spec.name].itemsize == 0


@pytest.mark.parametrize("surplus", [-2, 2])
def test_a_tensor_of_the_wrong_length_leaves_no_file(tmp_path, surplus) -> None:
    path = tmp_path / "x.safetensors"

    def wrong(spec):
        size = spec.size_bytes + (surplus if spec.name == "b" else 0)
        return [bytes(size)]

    with pytest.raises(ValueError, match="'b'"):
        write_safetensors(path, SPECS, wrong, metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"before")

    def failing(spec):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_safetensors(path, SPECS, failing, metadata=METADATA)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_a_name_given_twice_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="twice"):
        write_safetensors(tmp_path / "x", [SPECS[0], SPECS[0]], blocks_of, metadata=METADATA)
