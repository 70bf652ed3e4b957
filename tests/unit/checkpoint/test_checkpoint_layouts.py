"""Names and shapes of every tensor, in both layouts, for the released sizes."""

import pytest

from fastvlm_compile.checkpoint.configs import apple_config
from fastvlm_compile.checkpoint.inspect import count_parameters
from fastvlm_compile.checkpoint.sizes import SIZE_NAMES, size_named
from reference.checkpoint.expected import expected_tensors, is_optional
from reference.checkpoint.names import to_layout, to_module
from reference.config import parse_config
from reference.errors import CheckpointError

TOWER = "model.vision_tower.vision_tower.model."
TIMM = "model.vision_tower.timm_model."


def config_of(size: str):
    return parse_config(apple_config(size_named(size)), source="config.json")


def timm_names(depths) -> set[str]:
    """Parameters and buffers of timm's `fastvit_mci3(inference_mode=True, num_classes=0)`.

    Written from timm's `models/fastvit.py`: stem, stages of downsample, pos_emb and blocks,
    final_conv; nothing here looks at the map under test.
    """

    def conv(name: str) -> set[str]:
        return {f"{name}.weight", f"{name}.bias"}

    names = conv("stem.0.reparam_conv") | conv("stem.1.reparam_conv") | conv("stem.2.reparam_conv")
    for stage, depth in enumerate(depths):
        if stage:
            names |= conv(f"stages.{stage}.downsample.proj.0.reparam_conv")
            names |= conv(f"stages.{stage}.downsample.proj.1.reparam_conv")
        if stage >= 3:
            names |= conv(f"stages.{stage}.pos_emb.reparam_conv")
        for index in range(depth):
            block = f"stages.{stage}.blocks.{index}"
            names |= conv(f"{block}.mlp.fc1") | conv(f"{block}.mlp.fc2")
            names |= conv(f"{block}.mlp.conv.bn") | {f"{block}.mlp.conv.conv.weight"}
            names |= {
                f"{block}.mlp.conv.bn.{buffer}"
                for buffer in ("running_mean", "running_var", "num_batches_tracked")
            }
            if stage < 3:
                names |= conv(f"{block}.token_mixer.reparam_conv")
                names |= {f"{block}.layer_scale.gamma"}
            else:
                names |= conv(f"{block}.norm") | conv(f"{block}.token_mixer.proj")
                names |= {f"{block}.token_mixer.qkv.weight"}
                names |= {f"{block}.layer_scale_1.gamma", f"{block}.layer_scale_2.gamma"}
    names |= conv("final_conv.reparam_conv")
    return names | conv("final_conv.se.fc1") | conv("final_conv.se.fc2")


@pytest.mark.parametrize("size", SIZE_NAMES)
def test_expected_tensors_are_those_of_the_reference_module(size) -> None:
    import torch

    from reference.fastvlm import FastVLM

    config = config_of(size)
    with torch.device("meta"):
        state = FastVLM(config).state_dict()
    promised = {to_module(name): shape for name, shape in expected_tensors(config).items()}
    assert promised == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("size", "language"), [("0.5b", 630_167_424), ("1.5b", 1_777_088_000), ("7b", 7_615_616_512)]
)
def test_parameter_counts_are_the_published_ones(size, language) -> None:
    counts = count_parameters(expected_tensors(config_of(size)))
    assert counts.vision + counts.unused_head == 125_073_504
    assert counts.unused_head == 3072 * 768
    # Qwen2's published counts, with the output head as a tensor of its own.
    assert counts.language == language


@pytest.mark.parametrize(
    ("apple", "timm"),
    [
        ("patch_embed.0.reparam_conv.weight", "stem.0.reparam_conv.weight"),
        ("network.0.1.layer_scale", "stages.0.blocks.1.layer_scale.gamma"),
        (
            "network.1.proj.0.lkb_reparam.weight",
            "stages.1.downsample.proj.0.reparam_conv.weight",
        ),
        ("network.5.proj.1.reparam_conv.bias", "stages.3.downsample.proj.1.reparam_conv.bias"),
        ("network.6.reparam_conv.weight", "stages.3.pos_emb.reparam_conv.weight"),
        ("network.7.0.layer_scale_1", "stages.3.blocks.0.layer_scale_1.gamma"),
        ("network.7.3.token_mixer.proj.bias", "stages.3.blocks.3.token_mixer.proj.bias"),
        ("network.9.reparam_conv.bias", "stages.4.pos_emb.reparam_conv.bias"),
        (
            "network.10.1.convffn.conv.bn.running_var",
            "stages.4.blocks.1.mlp.conv.bn.running_var",
        ),
        ("conv_exp.se.reduce.weight", "final_conv.se.fc1.weight"),
        ("conv_exp.se.expand.bias", "final_conv.se.fc2.bias"),
        ("conv_exp.reparam_conv.weight", "final_conv.reparam_conv.weight"),
    ],
)
def test_a_tower_tensor_has_timms_name(apple, timm) -> None:
    assert to_layout(TOWER + apple, "transformers") == TIMM + timm


def test_the_tower_in_the_transformers_layout_is_timms_set_for_set() -> None:
    config = config_of("0.5b")
    ours = {
        to_layout(name, "transformers")
        for name in expected_tensors(config)
        if name.startswith(TOWER)
    } - {None}
    assert ours == {TIMM + name for name in timm_names((2, 12, 24, 4, 2))}


def test_the_rest_in_the_transformers_layout_is_theirs_set_for_set(tiny_config) -> None:
    import torch
    from transformers import FastVlmConfig, Qwen2ForCausalLM
    from transformers.models.fast_vlm.modeling_fast_vlm import FastVlmMultiModalProjector

    from fastvlm_compile.checkpoint.configs import to_transformers_config

    raw = to_transformers_config(tiny_config, source="x", tied=False, image_token_id=323)
    theirs = FastVlmConfig.from_dict(raw)
    with torch.device("meta"):
        language = Qwen2ForCausalLM(theirs.text_config).state_dict()
        projector = FastVlmMultiModalProjector(theirs).state_dict()
    wanted = {
        name.replace("model.", "model.language_model.", 1): tuple(tensor.shape)
        for name, tensor in language.items()
    }
    wanted |= {
        f"model.multi_modal_projector.{name}": tuple(tensor.shape)
        for name, tensor in projector.items()
    }
    config = parse_config(tiny_config, source="config.json")
    ours = {
        to_layout(name, "transformers"): shape
        for name, shape in expected_tensors(config).items()
        if not name.startswith(TOWER)
    }
    assert ours == wanted


def test_no_two_tensors_share_a_name_in_any_layout() -> None:
    names = list(expected_tensors(config_of("7b")))
    for layout in ("apple", "transformers"):
        placed = [to_layout(name, layout) for name in names]
        assert len(set(placed)) == len(names)
    modules = [to_module(name) for name in names]
    assert len(set(modules)) == len(names)


def test_only_the_unused_head_has_no_place_in_the_transformers_layout() -> None:
    homeless = [
        n for n in expected_tensors(config_of("0.5b")) if to_layout(n, "transformers") is None
    ]
    assert homeless == [TOWER + "head.proj"]
    assert is_optional(homeless[0])


def test_a_tensor_of_another_model_belongs_nowhere() -> None:
    with pytest.raises(CheckpointError, match=r"visual\.blocks"):
        to_module("visual.blocks.0.weight")
    with pytest.raises(CheckpointError, match=r"visual\.blocks"):
        to_layout("visual.blocks.0.weight", "transformers")
