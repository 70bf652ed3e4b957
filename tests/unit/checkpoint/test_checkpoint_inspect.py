"""`inspect` tells what a checkpoint is and everything that is wrong with it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvlm_compile.checkpoint.inspect import inspect_checkpoint


def rewrite(directory, change) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def problems(directory, **options) -> dict[str, bool]:
    return {p.what: p.fatal for p in inspect_checkpoint(directory, **options).problems}


def test_a_sound_checkpoint_is_described_without_a_word_of_complaint(random_checkpoint) -> None:
    summary = inspect_checkpoint(random_checkpoint, deep=True)
    assert summary.problems == ()
    assert summary.usable
    assert (summary.layout, summary.size) == ("apple", "other")
    assert (summary.image_size, summary.tokens_per_image) == (128, 4)
    assert (summary.context_length, summary.vocab_size, summary.tokenizer_size) == (256, 336, 324)
    assert summary.tied is False
    assert summary.num_tensors == sum(summary.dtypes.values())
    assert summary.dtypes["int64"] == 6
    assert summary.num_files == 1
    file = random_checkpoint / "model.safetensors"
    assert 0 < file.stat().st_size - summary.size_bytes < 50_000, "all but the header"


def test_parameters_are_counted_by_part(random_checkpoint) -> None:
    from reference.loading import load

    counts = inspect_checkpoint(random_checkpoint).parameters
    model = load(random_checkpoint)
    assert counts.vision + counts.unused_head == sum(p.numel() for p in model.vision.parameters())
    assert counts.unused_head == 256 * 16
    assert counts.projector == sum(p.numel() for p in model.projector.parameters())
    assert counts.language == sum(p.numel() for p in model.language.parameters())
    assert counts.total == sum(p.numel() for p in model.parameters())


def test_both_layouts_are_described_alike(random_checkpoint, make_checkpoint) -> None:
    apple = inspect_checkpoint(random_checkpoint)
    other = inspect_checkpoint(make_checkpoint(layout="transformers"))
    assert other.layout == "transformers"
    assert other.parameters.unused_head == 0
    assert other.parameters.vision == apple.parameters.vision
    assert other.parameters.language == apple.parameters.language
    assert other.image_size == apple.image_size


def test_missing_unexpected_and_misshapen_tensors_make_it_unusable(make_checkpoint) -> None:
    directory = make_checkpoint()

    def damage(tensors) -> None:
        del tensors["model.embed_tokens.weight"]
        tensors["model.extra"] = torch.zeros(1)
        tensors["model.norm.weight"] = torch.zeros(3)

    rewrite(directory, damage)
    summary = inspect_checkpoint(directory)
    assert not summary.usable
    assert [p.what for p in summary.problems] == [
        "missing: model.embed_tokens.weight",
        "unexpected: model.extra",
        "misshapen: model.norm.weight is [3], expected [64]",
    ]
    assert summary.tied is None


@pytest.mark.parametrize("claimed", [True, False])
def test_a_wrong_tie_flag_is_told_and_does_no_harm(make_checkpoint, claimed) -> None:
    directory = make_checkpoint()
    if not claimed:
        rewrite(directory, lambda tensors: tensors.pop("lm_head.weight"))
    path = directory / "config.json"
    raw = json.loads(path.read_text()) | {"tie_word_embeddings": claimed}
    path.write_text(json.dumps(raw))
    found = problems(directory)
    assert list(found.values()) == [False]
    assert f"tie_word_embeddings: {str(claimed).lower()}" in next(iter(found))
    path.write_text(json.dumps(raw | {"tie_word_embeddings": not claimed}))
    assert problems(directory) == {}


def test_a_missing_or_foreign_tokenizer_makes_it_unusable(make_checkpoint) -> None:
    directory = make_checkpoint()
    (directory / "merges.txt").rename(directory / "gone")
    assert list(problems(directory).values()) == [True]
    (directory / "gone").rename(directory / "merges.txt")
    added = directory / "added_tokens.json"
    many = {f"<more{i}>": 324 + i for i in range(13)}
    added.write_text(json.dumps(json.loads(added.read_text()) | many))
    assert problems(directory) == {"the tokenizer has 337 ids, the embedding only 336 rows": True}


def test_a_lora_adapter_beside_the_weights_is_told(make_checkpoint) -> None:
    directory = make_checkpoint()
    for name in ("adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin"):
        (directory / name).write_text("{}")
    (what, fatal), *rest = problems(directory).items()
    assert not rest
    assert not fatal
    assert "adapter_config.json, adapter_model.safetensors, non_lora_trainables.bin" in what


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_found_on_demand(make_checkpoint, dtype, value) -> None:
    directory = make_checkpoint()

    def damage(tensors) -> None:
        norm = torch.ones(64, dtype=dtype)
        norm[5] = value
        norm[9] = -value
        tensors["model.norm.weight"] = norm

    rewrite(directory, damage)
    assert problems(directory) == {}
    assert problems(directory, deep=True) == {
        "model.norm.weight holds 2 values that are not finite": True
    }


def test_inspecting_does_not_import_torch(random_checkpoint) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from fastvlm_compile.checkpoint.inspect import inspect_checkpoint\n"
        "assert inspect_checkpoint(Path(sys.argv[1]), deep=True).usable\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(random_checkpoint)], check=True)
