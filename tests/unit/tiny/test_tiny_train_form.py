"""Folding the train-time form gives the re-parameterised tower with equal outputs."""

import pytest
import torch
from torch import nn

from reference.config import VisionConfig
from reference.fastvithd import FastViTHD
from reference.tiny.train_form import NormedConv, fold, to_train_form

CONFIG = VisionConfig(
    image_size=128,
    depths=(1, 1, 2, 1, 1),
    widths=(8, 16, 32, 32, 64),
    head_dim=32,
    projection_dim=16,
)


@pytest.fixture
def trained() -> FastViTHD:
    """A tower in train form whose statistics are not those it was born with."""
    torch.manual_seed(0)
    vision = FastViTHD(CONFIG)
    to_train_form(vision)
    for module in vision.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        for _ in range(20):  # the running statistics become those of real activations
            vision(torch.rand(4, 3, 128, 128))
    return vision.eval()


@torch.inference_mode()
def test_the_folded_tower_computes_what_the_trained_one_did(trained: FastViTHD) -> None:
    images = torch.rand(2, 3, 128, 128)
    before = trained(images)
    fold(trained)
    # float32 rounding alone: the fold is exact in real numbers.
    torch.testing.assert_close(trained(images), before, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_forgetting_one_identity_branch_would_be_noticed(trained: FastViTHD) -> None:
    images = torch.rand(2, 3, 128, 128)
    before = trained(images)
    mixers = [m for m in trained.modules() if isinstance(m, NormedConv) and m.identity]
    mixers[0].identity = False
    fold(trained)
    assert (trained(images) - before).abs().max() > 1e-3


def test_the_folded_tower_has_exactly_the_checkpoints_tensors(trained: FastViTHD) -> None:
    fold(trained)
    plain = FastViTHD(CONFIG).state_dict()
    assert {k: v.shape for k, v in trained.state_dict().items()} == {
        k: v.shape for k, v in plain.items()
    }


def test_layer_scales_start_lively() -> None:
    vision = FastViTHD(CONFIG)
    to_train_form(vision)
    scales = [p for name, p in vision.named_parameters() if "layer_scale" in name]
    assert scales
    assert all(bool((scale.abs() > 0.1).all()) for scale in scales)
