"""The stages around checkpoints, as the build calls them."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvlm_compile.checkpoint import synthesize as made_up
from fastvlm_compile.checkpoint.describe import digest_tensors
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.checkpoint import (
    InspectConfig,
    SynthesizeConfig,
    TorchWeightsConfig,
    inspect,
    synthesize,
    torch_weights,
)
from reference.checkpoint.tensors import open_checkpoint
from reference.errors import CheckpointError, UserError
from reference.loading import load
from reference.prompt import load_tokenizer


def run_inspect(weights, out, *, image_size=128, context_length=256):
    out.mkdir()
    config = InspectConfig(image_size=image_size, context_length=context_length)
    inspect(config, {"weights": weights}, out, silent)
    return json.loads((out / "checkpoint.json").read_text())


def digest(directory) -> str:
    return digest_tensors(open_checkpoint(directory), silent)


def test_inspect_describes_the_checkpoint_and_the_build(random_checkpoint, tmp_path) -> None:
    found = run_inspect(random_checkpoint, tmp_path / "out", image_size=192, context_length=100)
    assert found["schema"] == 1
    assert (found["image_size"], found["tokens_per_image"]) == (192, 9)
    assert found["context_length"] == 100
    assert found["summary"]["image_size"] == 128
    assert found["summary"]["layout"] == "apple"
    assert found["tensors_sha256"] == digest(random_checkpoint)
    assert str(random_checkpoint) not in json.dumps(found), "no path of the building machine"


@pytest.mark.parametrize("layout", ["apple", "transformers"])
def test_inspect_collects_the_processor_and_always_makes_tokenizer_json(
    make_checkpoint, tmp_path, layout
) -> None:
    weights = make_checkpoint(layout=layout)
    run_inspect(weights, tmp_path / "out")
    processor = tmp_path / "out" / "processor"
    names = {path.name for path in processor.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"} <= names
    assert {"preprocessor_config.json", "generation_config.json"} <= names
    assert ("processor_config.json" in names) == (layout == "transformers")
    (processor / "vocab.json").unlink()
    assert load_tokenizer(processor).token_id("<image>") == 323


def test_inspect_writes_the_same_bytes_twice(random_checkpoint, tmp_path) -> None:
    for name in ("one", "two"):
        run_inspect(random_checkpoint, tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_an_unusable_checkpoint_fails_with_all_its_problems(make_checkpoint, tmp_path) -> None:
    weights = make_checkpoint()
    path = weights / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    (weights / "vocab.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        run_inspect(weights, tmp_path / "out")
    assert "missing: model.norm.weight" in caught.value.message
    assert "vocab.json" in caught.value.message
    assert not (tmp_path / "out" / "checkpoint.json").exists()


@pytest.mark.parametrize(
    ("image_size", "context_length", "words"),
    [
        (100, 256, "multiple of 64"),
        (0, 256, "multiple of 64"),
        (128, 513, "512 positions"),
        (1024, 256, "256 positions, the context has 256"),
    ],
)
def test_a_build_that_the_model_cannot_serve_is_refused(
    random_checkpoint, tmp_path, image_size, context_length, words
) -> None:
    with pytest.raises(UserError, match=words):
        run_inspect(
            random_checkpoint,
            tmp_path / "out",
            image_size=image_size,
            context_length=context_length,
        )


def test_synthesize_writes_a_checkpoint_of_the_asked_size(
    tiny_config, tmp_path, monkeypatch, random_checkpoint
) -> None:
    asked = []

    def tiny_plan(size, layout):
        asked.append((size, layout))
        return made_up.plan(tiny_config, layout)

    monkeypatch.setattr(made_up, "plan_size", tiny_plan)
    config = SynthesizeConfig(size="0.5b", seed=0, layout="apple")
    synthesize(config, {}, tmp_path, silent)
    assert asked == [("0.5b", "apple")]
    assert digest(tmp_path) == digest(random_checkpoint)


class TestDigest:
    def test_it_is_that_of_the_values_not_of_the_files(
        self, random_checkpoint, make_checkpoint
    ) -> None:
        other = make_checkpoint(layout="transformers")
        assert digest(other) == digest(random_checkpoint)

    def test_one_changed_bit_changes_it(self, random_checkpoint, make_checkpoint) -> None:
        other = make_checkpoint()
        path = other / "model.safetensors"
        tensors = load_file(path)
        tensors["model.norm.weight"].view(torch.int16)[0] ^= 1
        save_file(tensors, path)
        assert digest(other) != digest(random_checkpoint)

    def test_a_repeated_embedding_does_not_change_it(self, make_checkpoint) -> None:
        tied = make_checkpoint(tie_word_embeddings=True)
        before = digest(tied)
        path = tied / "model.safetensors"
        tensors = load_file(path)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, path)
        assert digest(tied) == before


@pytest.mark.parametrize("layout", ["apple", "transformers"])
def test_torch_weights_are_a_checkpoint_in_apples_layout(
    make_checkpoint, random_checkpoint, tmp_path, layout
) -> None:
    weights = make_checkpoint(layout=layout)
    out = tmp_path / "out"
    out.mkdir()
    torch_weights(TorchWeightsConfig(), {"weights": weights}, out, silent)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert open_checkpoint(out).layout == "apple"
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(load(out).logits(ids), load(random_checkpoint).logits(ids))


def test_the_stage_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, fastvlm_compile.stages.checkpoint\n"
        "heavy = {'numpy', 'torch', 'safetensors', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
