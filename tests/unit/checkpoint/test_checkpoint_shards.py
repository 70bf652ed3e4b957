"""Checkpoints are split into files as Hugging Face splits them."""

import json

from fastvlm_compile.checkpoint.safetensors_writer import TensorSpec
from fastvlm_compile.checkpoint.shards import plan_shards, shards_size_bytes, write_shards
from fastvlm_compile.checkpoint.synthesize import plan_size
from reference.checkpoint.storage import find_weight_files, scan_file

TENSORS = [TensorSpec(name=f"t{i}", dtype="float16", shape=(10,)) for i in range(5)]


def zeros(spec):
    return [bytes(spec.size_bytes)]


def test_what_fits_goes_into_one_plainly_named_file(tmp_path) -> None:
    shards = plan_shards(TENSORS)
    assert [shard.file for shard in shards] == ["model.safetensors"]
    write_shards(tmp_path, shards, zeros, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_no_file_grows_past_the_limit_and_the_index_finds_every_tensor(tmp_path) -> None:
    shards = plan_shards(TENSORS, max_shard_bytes=45)
    assert [len(shard.tensors) for shard in shards] == [2, 2, 1]
    write_shards(tmp_path, shards, zeros, lambda *_: None)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 100
    assert index["weight_map"]["t4"] == "model-00003-of-00003.safetensors"
    held = {name for path in find_weight_files(tmp_path) for name in scan_file(path)}
    assert held == {spec.name for spec in TENSORS}
    written = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert written == shards_size_bytes(shards)


def test_a_tensor_beyond_the_limit_gets_a_file_of_its_own() -> None:
    big = TensorSpec(name="big", dtype="float32", shape=(100,))
    shards = plan_shards([TENSORS[0], big, TENSORS[1]], max_shard_bytes=45)
    assert [[t.name for t in shard.tensors] for shard in shards] == [["t0"], ["big"], ["t1"]]


def test_the_7b_has_shards_under_five_gigabytes_and_the_0_5b_has_none() -> None:
    assert len(plan_size("0.5b", "apple").shards) == 1
    shards = plan_size("7b", "apple").shards
    assert len(shards) == 4
    assert all(sum(t.size_bytes for t in shard.tensors) <= 5_000_000_000 for shard in shards)


def test_progress_counts_megabytes_up_to_the_total(tmp_path) -> None:
    told = []
    write_shards(tmp_path, plan_shards(TENSORS), zeros, lambda *now: told.append(now))
    assert len(told) == len(TENSORS) + 1
    assert told[-1][0] == told[-1][1]
