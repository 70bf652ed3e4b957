"""Checkpoints load in every form they come in, and damaged ones say what is wrong with them."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference.checkpoint.names import HEAD_PROJECTION, to_module
from reference.checkpoint.tensors import open_checkpoint
from reference.errors import CheckpointError, ConfigError
from reference.loading import load

WEIGHTS = "model.safetensors"


def stored(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / WEIGHTS)


def rewrite(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(directory: Path, tensors: dict[str, torch.Tensor], suffix: str) -> Path:
    """Two shards with an index, in place of the single file."""
    (directory / WEIGHTS).unlink()
    names = sorted(tensors)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{suffix}"
        held = {name: tensors[name] for name in part}
        if suffix == "safetensors":
            save_file(held, directory / file)
        else:
            torch.save(held, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = directory / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def states_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_value_arrives_where_the_module_wants_it(random_checkpoint) -> None:
    model = load(random_checkpoint)
    state = model.state_dict()
    for name, tensor in stored(random_checkpoint).items():
        assert torch.equal(state[to_module(name)], tensor.to(state[to_module(name)].dtype)), name
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_both_layouts_of_one_seed_compute_the_same(random_checkpoint, make_checkpoint) -> None:
    other = make_checkpoint(name="transformers", layout="transformers")
    apple, transformers = load(random_checkpoint), load(other)
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, -200, 7]])
    assert transformers.config.layout == "transformers"
    assert torch.equal(apple.logits(ids, pixels), transformers.logits(ids, pixels))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_load_as_the_single_file_does(random_checkpoint, make_checkpoint, suffix) -> None:
    directory = make_checkpoint()
    shard(directory, stored(directory), suffix)
    assert states_equal(load(random_checkpoint), load(directory))


def test_a_pickled_state_dict_loads_as_the_safetensors_do(
    random_checkpoint, make_checkpoint
) -> None:
    directory = make_checkpoint()
    torch.save(stored(directory), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()
    assert states_equal(load(random_checkpoint), load(directory))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_any_float_on_disk_loads_into_the_asked_dtype(make_checkpoint, dtype) -> None:
    directory = make_checkpoint()
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in stored(directory).items()
    }
    rewrite(directory, tensors)
    assert open_checkpoint(directory).read("model.norm.weight").dtype == dtype
    for asked in (torch.float32, torch.bfloat16):
        state = load(directory, dtype=asked).state_dict()
        assert {t.dtype for t in state.values()} == {asked, torch.int64}
        norm = state["language.norm.weight"]
        assert torch.equal(norm, tensors["model.norm.weight"].to(asked))


def test_the_unused_head_and_the_step_counters_may_be_missing(
    random_checkpoint, make_checkpoint
) -> None:
    directory = make_checkpoint()
    kept = {
        name: tensor
        for name, tensor in stored(directory).items()
        if name != HEAD_PROJECTION and not name.endswith("num_batches_tracked")
    }
    rewrite(directory, kept)
    pixels = torch.rand(1, 3, 128, 128)
    assert torch.equal(
        load(directory).vision_tower(pixels), load(random_checkpoint).vision_tower(pixels)
    )


class TestTie:
    """The tensors decide whether the output head is the embedding, not the config."""

    def test_a_config_that_wrongly_claims_a_tie_keeps_the_head(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        change_config(directory, tie_word_embeddings=True)
        model = load(directory)
        assert model.config.text.tie_word_embeddings
        assert not open_checkpoint(directory).tied
        head = stored(directory)["lm_head.weight"].float()
        assert torch.equal(model.language.lm_head.weight, head)

    def test_a_config_that_wrongly_denies_a_tie_gets_the_embedding(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        tensors = stored(directory)
        del tensors["lm_head.weight"]
        rewrite(directory, tensors)
        change_config(directory, tie_word_embeddings=False)
        model = load(directory)
        assert open_checkpoint(directory).tied
        assert model.language.lm_head.weight is model.language.embed_tokens.weight

    def test_a_head_that_repeats_the_embedding_is_a_tie(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        tensors = stored(directory)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        rewrite(directory, tensors)
        assert open_checkpoint(directory).tied
        tensors["lm_head.weight"][3, 5] += 1
        rewrite(directory, tensors)
        assert not open_checkpoint(directory).tied

    def test_a_head_of_another_dtype_is_no_tie(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        tensors = stored(directory)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].float()
        rewrite(directory, tensors)
        assert not open_checkpoint(directory).tied


class TestDamage:
    """Each kind of damage names the file and what is wrong with it."""

    def complains(self, directory: Path, *words: str) -> None:
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            load(directory)
        told = caught.value.message
        assert str(directory) in told
        assert all(word in told for word in words), told

    def test_missing_unexpected_and_misshapen_tensors_are_named(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        tensors = stored(directory)
        del tensors["model.norm.weight"]
        tensors["model.surprise"] = torch.zeros(2)
        tensors["model.mm_projector.2.bias"] = torch.zeros(63)
        rewrite(directory, tensors)
        self.complains(
            directory,
            "missing: model.norm.weight",
            "unexpected: model.surprise",
            "misshapen: model.mm_projector.2.bias is [63], expected [64]",
        )

    def test_a_long_list_of_missing_tensors_is_counted(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        rewrite(directory, {"model.norm.weight": torch.zeros(64)})
        self.complains(directory, "missing: and ", " more")

    def test_a_config_of_another_width_is_told_by_the_shapes(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        change_config(directory, intermediate_size=95)
        self.complains(directory, "mlp.down_proj.weight is [64, 96], expected [64, 95]")

    @pytest.mark.parametrize("kept", [0, 5, 100, 5000, -1])
    def test_a_truncated_file_is_told(self, make_checkpoint, kept) -> None:
        directory = make_checkpoint()
        path = directory / WEIGHTS
        path.write_bytes(path.read_bytes()[:kept])
        self.complains(directory, WEIGHTS, "not a readable safetensors file")

    @pytest.mark.parametrize("lie", ["length", "offsets", "shape", "dtype", "unknown dtype"])
    def test_a_header_that_lies_is_told(self, make_checkpoint, lie) -> None:
        directory = make_checkpoint()
        path = directory / WEIGHTS
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        entry = header["model.norm.weight"]
        if lie == "offsets":
            entry["data_offsets"][1] += 10**9
        elif lie == "shape":
            entry["shape"] = [65]
        elif lie == "dtype":
            entry["dtype"] = "F32"
        elif lie == "unknown dtype":
            entry["dtype"] = "F8_E4M3"
            entry["shape"] = [128]
        text = json.dumps(header).encode()
        claimed = 10**12 if lie == "length" else len(text)
        path.write_bytes(claimed.to_bytes(8, "little") + text + content[8 + length :])
        self.complains(directory, WEIGHTS)

    def test_a_missing_shard_is_named(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        shard(directory, stored(directory), "safetensors")
        (directory / "model-00002-of-00002.safetensors").unlink()
        self.complains(directory, "missing shard model-00002-of-00002.safetensors")

    def test_an_index_that_names_a_missing_tensor_is_told(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        index = shard(directory, stored(directory), "safetensors")
        content = json.loads(index.read_text())
        content["weight_map"]["model.ghost"] = "model-00001-of-00002.safetensors"
        index.write_text(json.dumps(content))
        self.complains(directory, "model.ghost", "not in the shard")

    @pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
    def test_an_index_that_is_none_is_told(self, make_checkpoint, text) -> None:
        directory = make_checkpoint()
        shard(directory, stored(directory), "safetensors").write_text(text)
        self.complains(directory, "not an index of shards")

    def test_an_index_that_points_outside_the_folder_is_refused(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        index = shard(directory, stored(directory), "safetensors")
        index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
        self.complains(directory, "not a plain file name")

    def test_a_folder_without_weights_says_which_files_it_looked_for(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        (directory / WEIGHTS).unlink()
        with pytest.raises(CheckpointError, match="no weights found") as caught:
            load(directory)
        assert "pytorch_model.bin" in caught.value.hint

    def test_pickled_code_is_refused_and_not_run(self, make_checkpoint, tmp_path) -> None:
        directory = make_checkpoint()
        (directory / WEIGHTS).unlink()
        ran = tmp_path / "ran"
        torch.save({"model.norm.weight": _Touch(ran)}, directory / "pytorch_model.bin")
        self.complains(directory, "pytorch_model.bin", "not a plain pickled state dict")
        assert not ran.exists()
        # The negative control: the same file does run its code where it is allowed to.
        torch.load(directory / "pytorch_model.bin", weights_only=False)
        assert ran.exists()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", pickle.dumps([1, 2]), b"\x80"])
    def test_a_bin_file_that_is_no_state_dict_is_told(self, make_checkpoint, content) -> None:
        directory = make_checkpoint()
        (directory / WEIGHTS).unlink()
        (directory / "pytorch_model.bin").write_bytes(content)
        self.complains(directory, "pytorch_model.bin")

    def test_a_truncated_bin_file_is_told(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        path = directory / "pytorch_model.bin"
        torch.save(stored(directory), path)
        (directory / WEIGHTS).unlink()
        path.write_bytes(path.read_bytes()[:-1000])
        self.complains(directory, "pytorch_model.bin", "not a plain pickled state dict")

    def test_a_bin_tensor_of_an_unknown_dtype_is_named(self, make_checkpoint) -> None:
        directory = make_checkpoint()
        tensors = stored(directory)
        tensors["model.norm.weight"] = torch.zeros(64, dtype=torch.int8)
        torch.save(tensors, directory / "pytorch_model.bin")
        (directory / WEIGHTS).unlink()
        self.complains(directory, "model.norm.weight", "int8")


class _Touch:
    """Pickles into a call that leaves a trace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))
