"""A LoRA fine-tune becomes exactly the checkpoint that it stands for."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from adapter_maker import ALPHA, RANK, make_projector, merged_by_hand, write_adapter
from safetensors.torch import load_file, save_file

from fastvlm_compile.adapter.fine_tune import open_fine_tune
from fastvlm_compile.adapter.merge import write_merged
from fastvlm_compile.checkpoint.convert import write_converted
from fastvlm_compile.checkpoint.inspect import inspect_checkpoint
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.merge import MergeConfig, merge
from reference.loading import load

TINY = Path(__file__).parents[3] / "recipes" / "tiny-checkpoint"


def _merged(adapter: Path, base: Path, out: Path) -> dict[str, torch.Tensor]:
    out.mkdir()
    merge(MergeConfig(), {"adapter": adapter, "base": base}, out, silent)
    return load_file(out / "model.safetensors")


def _assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("default", ["", ".default"])
def test_every_tensor_is_the_one_merged_by_hand(tmp_path, pickled, default) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY, pickled=pickled, default=default)
    found = _merged(adapter, TINY, tmp_path / "out")
    expected = merged_by_hand(TINY, ALPHA / RANK)
    _assert_same(found, expected)
    base = load_file(TINY / "model.safetensors")
    num_changed = sum(not torch.equal(found[name], base[name]) for name in base)
    assert num_changed == 4 * 3 + 4, "three matrices a layer, and the projector"


def test_the_reference_computes_the_same_from_both(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    _merged(adapter, TINY, tmp_path / "out")
    by_hand = Path(shutil.copytree(TINY, tmp_path / "by_hand"))
    save_file(merged_by_hand(TINY, ALPHA / RANK), by_hand / "model.safetensors")
    pixels = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, 5, 435, 9, 200, 31]])
    outputs = []
    for folder in (tmp_path / "out", by_hand, TINY):
        outputs.append(load(folder).logits(ids, pixels))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=0.1), "the adapter does something"


def test_a_rank_stabilised_adapter_is_divided_by_the_root_of_its_rank(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY, use_rslora=True)
    found = _merged(adapter, TINY, tmp_path / "out")
    _assert_same(found, merged_by_hand(TINY, ALPHA / math.sqrt(RANK)))


def test_a_base_in_the_other_layout_gives_the_same_weights(tmp_path, make_checkpoint) -> None:
    base = make_checkpoint()
    other, back = tmp_path / "other", tmp_path / "back"
    other.mkdir()
    back.mkdir()
    write_converted(base, "transformers", other, silent)
    adapter = write_adapter(tmp_path / "lora", base)
    apple = _merged(adapter, base, tmp_path / "apple")
    (adapter / "config.json").unlink()
    _merged(adapter, other, tmp_path / "merged")
    write_converted(tmp_path / "merged", "apple", back, silent)
    found = load_file(back / "model.safetensors")
    head = "model.vision_tower.vision_tower.model.head.proj"
    assert apple.keys() - found.keys() == {head}, "that layout has no place for the unused head"
    _assert_same(found, {name: apple[name] for name in found})


def test_modules_that_were_saved_whole_replace_those_of_the_base(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY, modules_to_save=["lm_head"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    head = load_file(TINY / "model.safetensors")["lm_head.weight"].float() * 0.5
    for name in (
        "base_model.model.lm_head.weight",
        "base_model.model.lm_head.modules_to_save.weight",
    ):
        save_file(tensors | {name: head}, adapter / "adapter_model.safetensors")
        found = _merged(adapter, TINY, tmp_path / str(len(name)))
        assert torch.equal(found["lm_head.weight"], head.half())


def test_config_is_the_fine_tunes_and_the_tokenizer_the_bases(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    config = json.loads((adapter / "config.json").read_text()) | {"image_aspect_ratio": "square"}
    (adapter / "config.json").write_text(json.dumps(config))
    _merged(adapter, TINY, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == config
    tokenizer = (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert tokenizer == (TINY / "tokenizer.json").read_bytes()
    assert not list((tmp_path / "out").glob("adapter*"))
    summary = inspect_checkpoint(tmp_path / "out")
    assert summary.usable
    assert summary.problems == ()


def test_neither_the_adapter_nor_the_base_is_written(tmp_path) -> None:
    base = Path(shutil.copytree(TINY, tmp_path / "base"))
    adapter = write_adapter(tmp_path / "lora", TINY)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    _merged(adapter, base, tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before


def test_values_that_do_not_fit_the_base_type_are_an_error_with_the_tensors_name(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    trained = {f"base_model.model.{k}": v.float() * 1e8 for k, v in make_projector(TINY).items()}
    torch.save(trained, adapter / "non_lora_trainables.bin")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Exception, match=r"mm_projector.* values that float16 cannot hold"):
        write_merged(open_fine_tune(adapter, TINY), out, silent)
