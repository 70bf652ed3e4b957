"""FastViTHD has the released model's tensors and computes what its description says."""

import pytest
import torch
import torch.nn.functional as F

from reference.config import VisionConfig
from reference.fastvithd import (
    Attention,
    ChannelLayerNorm,
    FastViTHD,
    SqueezeExcite,
)

SMALL = VisionConfig(image_size=128, depths=(1, 2, 1, 1, 1), widths=(8, 16, 32, 64, 128))


def test_parameter_count_is_the_released_models() -> None:
    with torch.device("meta"):
        model = FastViTHD(VisionConfig(image_size=1024))
    assert sum(p.numel() for p in model.parameters()) == 125_073_504
    assert model.head.proj.numel() == 3072 * 768


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.0.reparam_conv.weight", (96, 3, 3, 3)),
        ("patch_embed.1.reparam_conv.weight", (96, 1, 3, 3)),
        ("patch_embed.2.reparam_conv.weight", (96, 96, 1, 1)),
        ("network.0.1.token_mixer.reparam_conv.weight", (96, 1, 3, 3)),
        ("network.1.proj.0.lkb_reparam.weight", (192, 1, 7, 7)),
        ("network.1.proj.1.reparam_conv.weight", (192, 192, 1, 1)),
        ("network.2.11.convffn.conv.conv.weight", (192, 1, 7, 7)),
        ("network.4.23.convffn.fc1.weight", (1536, 384, 1, 1)),
        ("network.4.23.layer_scale", (384, 1, 1)),
        ("network.6.reparam_conv.weight", (768, 1, 7, 7)),
        ("network.7.3.token_mixer.qkv.weight", (2304, 768)),
        ("network.7.3.norm.weight", (768,)),
        ("network.9.reparam_conv.bias", (1536,)),
        ("network.10.1.layer_scale_2", (1536, 1, 1)),
        ("conv_exp.reparam_conv.weight", (3072, 1, 3, 3)),
        ("conv_exp.se.reduce.weight", (192, 3072, 1, 1)),
        ("head.proj", (3072, 768)),
    ],
)
def test_names_and_shapes_are_the_released_models(name, shape) -> None:
    with torch.device("meta"):
        state = FastViTHD(VisionConfig(image_size=1024)).state_dict()
    assert tuple(state[name].shape) == shape


def test_blocks_stand_where_the_depths_say() -> None:
    with torch.device("meta"):
        network = FastViTHD(VisionConfig(image_size=1024)).network
    assert len(network) == 11
    assert [len(network[i]) for i in (0, 2, 4, 7, 10)] == [2, 12, 24, 4, 2]


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 256), (192, 320)])
def test_the_feature_map_is_a_sixty_fourth_of_the_image(height, width) -> None:
    torch.manual_seed(0)
    out = FastViTHD(SMALL).eval()(torch.rand(1, 3, height, width))
    assert out.shape == (1, SMALL.out_channels, height // 64, width // 64)


@torch.no_grad()
def test_layer_norm_normalises_each_position_over_its_channels() -> None:
    torch.manual_seed(0)
    norm = ChannelLayerNorm(6)
    norm.weight.copy_(torch.randn(6))
    norm.bias.copy_(torch.randn(6))
    x = torch.randn(2, 6, 3, 4) * 5 + 2
    centred = x - x.mean(1, keepdim=True)
    expected = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attention_mixes_positions_as_the_formula_says() -> None:
    torch.manual_seed(0)
    attention = Attention(64, head_dim=32)
    x = torch.randn(2, 64, 3, 4)
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = attention.qkv(tokens).split(64, dim=-1)
    heads = []
    for h in range(2):
        part = slice(32 * h, 32 * h + 32)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 32**0.5
        heads.append(scores.softmax(-1) @ v[..., part])
    expected = attention.proj(torch.cat(heads, -1)).transpose(1, 2).reshape(2, 64, 3, 4)
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_squeeze_excite_gates_each_channel_by_the_means_of_all() -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(32)
    x = torch.randn(2, 32, 5, 5)
    means = x.flatten(2).mean(-1)
    hidden = F.relu(means @ block.reduce.weight.flatten(1).T + block.reduce.bias)
    gate = torch.sigmoid(hidden @ block.expand.weight.flatten(1).T + block.expand.bias)
    torch.testing.assert_close(block(x), x * gate[..., None, None], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_unused_head_does_not_change_the_feature_map() -> None:
    torch.manual_seed(0)
    model = FastViTHD(SMALL).eval()
    image = torch.rand(1, 3, 128, 128)
    before = model(image)
    model.head.proj.fill_(7.0)
    assert torch.equal(model(image), before)
