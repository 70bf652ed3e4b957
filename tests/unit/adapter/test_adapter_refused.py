"""What cannot be merged truly is refused, with the file, the tensor and the way out."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_maker import PREFIX, write_adapter, write_config
from safetensors.torch import load_file, save_file

from fastvlm_compile.adapter.config import load_adapter_config
from fastvlm_compile.adapter.fine_tune import open_fine_tune
from reference.errors import CheckpointError

TINY = Path(__file__).parents[3] / "recipes" / "tiny-checkpoint"
Q0 = f"{PREFIX}model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


def _drop_b(tensors: Tensors) -> None:
    del tensors[f"{Q0}.lora_B.weight"]


def _drop_a(tensors: Tensors) -> None:
    del tensors[f"{Q0}.lora_A.weight"]


def _drop_pair(tensors: Tensors) -> None:
    _drop_a(tensors)
    _drop_b(tensors)


def _other_rank(tensors: Tensors) -> None:
    tensors[f"{Q0}.lora_A.weight"] = torch.zeros(8, 128)


def _other_width(tensors: Tensors) -> None:
    tensors[f"{Q0}.lora_B.weight"] = torch.zeros(64, 4)


def _unknown_layer(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 128)


def _unknown_tensor(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.something.weight"] = torch.zeros(4)


def _not_named(tensors: Tensors) -> None:
    name = f"{PREFIX}model.layers.0.self_attn.o_proj"
    tensors[f"{name}.lora_A.weight"] = torch.zeros(4, 128)
    tensors[f"{name}.lora_B.weight"] = torch.zeros(128, 4)


def _convolution(tensors: Tensors) -> None:
    name = f"{PREFIX}model.vision_tower.vision_tower.model.patch_embed.0.reparam_conv"
    tensors[f"{name}.lora_A.weight"] = torch.zeros(4, 3)
    tensors[f"{name}.lora_B.weight"] = torch.zeros(16, 4)


def _dora(tensors: Tensors) -> None:
    tensors[f"{Q0}.lora_magnitude_vector"] = torch.zeros(128)


def _embedding(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.embed_tokens.lora_embedding_A"] = torch.zeros(4, 512)


def _twice(tensors: Tensors) -> None:
    tensors[f"{Q0}.lora_A.default.weight"] = torch.zeros(4, 128)


def _both(tensors: Tensors) -> None:
    tensors[f"{Q0}.weight"] = torch.zeros(128, 128)


def _misshapen(tensors: Tensors) -> None:
    tensors[f"{PREFIX}lm_head.weight"] = torch.zeros(600, 128)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_b, "q_proj.lora_A.weight' has no lora_B"),
        (_drop_a, "q_proj.lora_B.weight' has no lora_A"),
        (_drop_pair, "1 layers that adapter_config.json names have no matrices, first 'model.lay"),
        (_other_rank, "q_proj.lora_A.weight' is [8, 128], expected [4, 128]"),
        (_other_width, "q_proj.lora_B.weight' is [64, 4], expected [128, 4]"),
        (_unknown_layer, "belongs to 'model.layers.9.self_attn.q_proj.weight', which the base"),
        (_unknown_tensor, "belongs to 'model.something.weight', which the base has not"),
        (_not_named, "o_proj.lora_A.weight' is of a layer that adapter_config.json does not name"),
        (_convolution, "which is [16, 3, 3, 3]; only matrices are merged"),
        (_dora, "lora_magnitude_vector' is of a kind of LoRA that is not merged here"),
        (_embedding, "lora_embedding_A' is of a kind of LoRA that is not merged here"),
        (_twice, "is given twice"),
        (_both, "model.layers.0.self_attn.q_proj.weight is both adapted and replaced"),
        (_misshapen, "lm_head.weight' is [600, 128], the base's is [512, 128]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path, damage: Callable[[Tensors], None], message: str
) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        open_fine_tune(adapter, TINY)
    assert str(adapter) in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', only LORA"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"invented": 1}, "unknown key 'invented'"),
    ],
)
def test_what_would_compute_something_else_is_refused(tmp_path, changes, message) -> None:
    write_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_adapter_config(tmp_path)


def test_switched_off_methods_of_a_newer_peft_are_passed_over(tmp_path) -> None:
    write_config(tmp_path, invented=None, other=False, use_dora=False, rank_pattern={})
    assert load_adapter_config(tmp_path).scale == 1.5


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_config_is_told(tmp_path, text) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        load_adapter_config(tmp_path)


def test_code_in_a_pickle_is_refused_and_the_way_out_told(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    torch.save({"x": Path("/")}, adapter / "non_lora_trainables.bin")
    with pytest.raises(CheckpointError, match=r"non_lora_trainables\.bin") as caught:
        open_fine_tune(adapter, TINY)
    assert "convert it to safetensors" in caught.value.hint


def test_another_model_is_no_base(tmp_path, random_checkpoint) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    with pytest.raises(CheckpointError, match="describes another model"):
        open_fine_tune(adapter, random_checkpoint)


def test_a_base_in_another_layout_than_the_config_is_refused(tmp_path, make_checkpoint) -> None:
    adapter = write_adapter(tmp_path / "lora", make_checkpoint(name="base"))
    other = make_checkpoint(name="other", layout="transformers")
    with pytest.raises(CheckpointError, match="transformers layout") as caught:
        open_fine_tune(adapter, other)
    assert "checkpoint convert" in caught.value.hint


def test_a_head_that_is_the_embedding_cannot_be_changed_alone(tmp_path) -> None:
    base = Path(shutil.copytree(TINY, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, base / "model.safetensors")
    adapter = write_adapter(tmp_path / "lora", base)
    path = adapter / "adapter_model.safetensors"
    embedding = {f"{PREFIX}model.embed_tokens.weight": torch.zeros(512, 128)}
    save_file(load_file(path) | embedding, path)
    with pytest.raises(CheckpointError, match="the output head is the embedding"):
        open_fine_tune(adapter, base)


def test_an_adapter_without_matrices_is_refused(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "lora", TINY)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors and no"):
        open_fine_tune(adapter, TINY)
    write_config(adapter, target_modules="all-linear")
    save_file({}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="holds no LoRA matrices"):
        open_fine_tune(adapter, TINY)
