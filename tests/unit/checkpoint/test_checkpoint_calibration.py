"""The calibration computes the reference's tower, so its statistics are what the tower sees."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastvlm_compile.checkpoint.calibration import _NUM_IMAGES, _gelu, calibrate, natural_images
from reference.config import parse_config
from reference.loading import load


@pytest.fixture(scope="module")
def tower(random_checkpoint):
    return load(random_checkpoint).vision


def recorded(tower, kinds, images) -> dict[str, torch.Tensor]:
    """What flows into the BatchNorms, or out of the named modules, by module name."""
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in tower.named_modules():
        if name.endswith(kinds):

            def keep(module, inputs, output, name=name) -> None:
                seen[name] = inputs[0] if name.endswith(".bn") else output

            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        tower(torch.from_numpy(images).float())
    for hook in hooks:
        hook.remove()
    return seen


def worst_mismatch(tower, images) -> float:
    """Largest distance of measured statistics from the stored ones, in stored deviations."""
    modules = dict(tower.named_modules())
    worst = 0.0
    for name, x in recorded(tower, (".bn",), images).items():
        deviation = modules[name].running_var.sqrt()
        mean = (x.mean(dim=(0, 2, 3)) - modules[name].running_mean).abs() / deviation
        spread = (x.std(dim=(0, 2, 3), correction=0) / deviation - 1).abs()
        worst = max(worst, mean.max().item(), spread.max().item())
    return worst


def test_running_statistics_are_those_of_the_reference_on_the_same_images(tower) -> None:
    # The stored weights are rounded to float16, those of the calibration are not.
    assert worst_mismatch(tower, natural_images(_NUM_IMAGES, 128, 0)) < 0.02


def test_running_statistics_do_not_fit_other_images(tower) -> None:
    """The negative control."""
    assert worst_mismatch(tower, np.ones((2, 3, 128, 128))) > 0.5


def test_convolutions_that_hold_a_batchnorm_give_maps_of_drawn_scale(tower) -> None:
    kinds = ("lkb_reparam", "patch_embed.1.reparam_conv", "proj.1.reparam_conv")
    maps = recorded(tower, kinds, natural_images(_NUM_IMAGES, 128, 0))
    assert len(maps) == 1 + 2 * 4
    for x in maps.values():
        std = x.std(dim=(0, 2, 3))
        assert std.min() > 0.3
        assert std.max() < 3
        assert 0.7 < std.median() < 1.4


def test_gelu_is_exact_enough() -> None:
    x = np.linspace(-9, 9, 2001)
    exact = F.gelu(torch.from_numpy(x)).numpy()
    # Abramowitz and Stegun 7.1.26 promises 1.5e-7 of erf; GELU multiplies it by x / 2.
    assert np.max(np.abs(_gelu(x.copy()) - exact)) < 1e-6


def test_images_are_images_and_differ(tiny_config) -> None:
    images = natural_images(5, 64, 3)
    assert images.shape == (5, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images[0, :, :10].max() == 0, "the bars of `pad`"
    spread = images.std(axis=(1, 2, 3))
    assert spread.min() > 0.05
    assert np.ptp(images.mean(axis=(1, 2, 3))) > 0.05
    np.testing.assert_array_equal(images, natural_images(5, 64, 3))
    assert not np.array_equal(images, natural_images(5, 64, 4))


def test_progress_tells_of_every_stage(tiny_config) -> None:
    told = []
    config = parse_config(tiny_config, source="config.json")
    calibrate(config, 0, lambda *now: told.append(now))
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4]
