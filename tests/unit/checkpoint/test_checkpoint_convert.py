"""Conversion between the layouts loses nothing, in either direction."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvlm_compile.checkpoint.convert import (
    EXTRAS_FILE,
    converted_size_bytes,
    write_converted,
    write_weights,
)
from fastvlm_compile.checkpoint.inspect import inspect_checkpoint
from fastvlm_compile.progress import silent
from reference.checkpoint.names import HEAD_PROJECTION
from reference.errors import CheckpointError
from reference.loading import load
from reference.prompt import load_tokenizer


def convert(source, layout, out):
    out.mkdir()
    write_converted(source, layout, out, silent)
    return out


def config_of(directory):
    return json.loads((directory / "config.json").read_text())


@pytest.mark.parametrize("layout", ["apple", "transformers"])
def test_there_and_back_gives_the_same_bytes_and_config(make_checkpoint, tmp_path, layout) -> None:
    source = make_checkpoint(layout=layout)
    other = "transformers" if layout == "apple" else "apple"
    there = convert(source, other, tmp_path / "there")
    back = convert(there, layout, tmp_path / "back")
    assert config_of(there)["model_type"] != config_of(source)["model_type"]
    assert config_of(back) == config_of(source)
    weights = "model.safetensors"
    assert (back / weights).read_bytes() == (source / weights).read_bytes()
    assert (there / weights).read_bytes() != (source / weights).read_bytes()


def test_a_conversion_computes_what_its_source_computes(random_checkpoint, tmp_path) -> None:
    there = convert(random_checkpoint, "transformers", tmp_path / "there")
    assert inspect_checkpoint(there, deep=True).problems == ()
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[4, -200, 9]])
    one, other = load(random_checkpoint), load(there)
    assert torch.equal(one.logits(ids, pixels), other.logits(ids, pixels))


def test_a_conversion_has_the_tensors_of_one_made_in_that_layout(
    random_checkpoint, make_checkpoint, tmp_path
) -> None:
    there = load_file(
        convert(random_checkpoint, "transformers", tmp_path / "there") / "model.safetensors"
    )
    made = load_file(make_checkpoint(layout="transformers") / "model.safetensors")
    assert there.keys() == made.keys()
    assert all(torch.equal(there[name], made[name]) for name in made)


def test_the_unused_head_waits_in_a_side_file(random_checkpoint, tmp_path) -> None:
    there = convert(random_checkpoint, "transformers", tmp_path / "there")
    head = load_file(random_checkpoint / "model.safetensors")[HEAD_PROJECTION]
    extras = load_file(there / EXTRAS_FILE)
    assert extras.keys() == {HEAD_PROJECTION}
    assert torch.equal(extras[HEAD_PROJECTION], head)
    (there / EXTRAS_FILE).unlink()
    back = convert(there, "apple", tmp_path / "back")
    assert HEAD_PROJECTION not in load_file(back / "model.safetensors")
    load(back)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_stored_dtype_is_kept(make_checkpoint, tmp_path, dtype) -> None:
    source = make_checkpoint()
    path = source / "model.safetensors"
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in load_file(path).items()}
    save_file(tensors, path)
    back = convert(convert(source, "transformers", tmp_path / "there"), "apple", tmp_path / "back")
    found = load_file(back / "model.safetensors")
    assert all(found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in tensors.items())


def test_a_pickled_source_becomes_safetensors(make_checkpoint, tmp_path) -> None:
    source = make_checkpoint()
    tensors = load_file(source / "model.safetensors")
    torch.save(tensors, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    out = tmp_path / "out"
    out.mkdir()
    write_weights(source, "apple", out, silent)
    found = load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_tied_checkpoint_stays_tied_and_says_so(make_checkpoint, tmp_path) -> None:
    source = make_checkpoint(tie_word_embeddings=True)
    raw = config_of(source) | {"tie_word_embeddings": False}
    (source / "config.json").write_text(json.dumps(raw))
    there = convert(source, "transformers", tmp_path / "there")
    assert config_of(there)["tie_word_embeddings"] is True
    assert config_of(there)["text_config"]["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(there / "model.safetensors")
    assert config_of(convert(there, "apple", tmp_path / "back")) == raw


def test_a_tokenizer_without_the_image_token_gets_it_for_transformers(
    make_checkpoint, tmp_path
) -> None:
    source = make_checkpoint()
    (source / "added_tokens.json").unlink()
    path = source / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    del raw["added_tokens_decoder"]["323"]
    path.write_text(json.dumps(raw))
    assert load_tokenizer(source).token_id("<image>") is None
    there = convert(source, "transformers", tmp_path / "there")
    assert load_tokenizer(there).token_id("<image>") == 323
    assert config_of(there)["image_token_index"] == 323
    decoder = json.loads((there / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert decoder["323"]["content"] == "<image>"


def test_an_embedding_without_a_row_for_the_image_token_is_told(make_checkpoint, tmp_path) -> None:
    source = make_checkpoint(vocab_size=324)
    added = source / "added_tokens.json"
    added.write_text(
        json.dumps({"<|endoftext|>": 320, "<|im_start|>": 321, "<|im_end|>": 322, "<other>": 323})
    )
    path = source / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    del raw["added_tokens_decoder"]
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="324 rows, none for <image>"):
        convert(source, "transformers", tmp_path / "there")


def test_converting_to_the_layout_it_has_is_refused(random_checkpoint, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="apple layout already"):
        convert(random_checkpoint, "apple", tmp_path / "out")


def test_side_files_of_another_model_are_refused(random_checkpoint, tmp_path) -> None:
    there = convert(random_checkpoint, "transformers", tmp_path / "there")
    path = there / "apple_config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"rope_theta": 5.0}))
    with pytest.raises(CheckpointError, match="another model"):
        convert(there, "apple", tmp_path / "a")
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        convert(there, "apple", tmp_path / "b")
    path.write_text(kept)
    save_file({HEAD_PROJECTION: torch.zeros(3, 3)}, there / EXTRAS_FILE)
    with pytest.raises(CheckpointError, match=r"head\.proj.*does not belong"):
        convert(there, "apple", tmp_path / "c")


def test_adapters_and_indexes_are_not_carried_over(make_checkpoint, tmp_path) -> None:
    source = make_checkpoint()
    for name in ("adapter_config.json", "pytorch_model.bin.index.json", "notes.bin"):
        (source / name).write_text("{}")
    (source / "README.md").write_text("about")
    there = convert(source, "transformers", tmp_path / "there")
    names = {path.name for path in there.iterdir()}
    assert names.isdisjoint({"adapter_config.json", "pytorch_model.bin.index.json", "notes.bin"})
    assert {"README.md", "processor_config.json", "chat_template.jinja"} <= names
    written = sum(path.stat().st_size for path in there.iterdir())
    assert written <= converted_size_bytes(source)
