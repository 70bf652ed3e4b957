"""Runs maps through a made-up FastViTHD and measures what its BatchNorms would have measured.

A trained tower keeps every map in range because each convolution was followed by a BatchNorm: some
are still in the file, the others are folded into `reparam_conv` and `lkb_reparam`. Random weights
without that explode within a stage. So the tower is computed once, block by block, on images with
natural statistics; folded convolutions are rescaled to what their BatchNorm would have given, and
running statistics are what was measured.

All in float64: sums then differ between machines far below the precision in which the results are
stored. The computation is that of `reference/fastvithd.py`, written with NumPy because a checkpoint
is made without PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fastvlm_compile.checkpoint.draws import Floats, Source, heavy_tailed, log_normal
from fastvlm_compile.checkpoint.vision_statistics import Calibration, VisionStatistics
from fastvlm_compile.progress import Progress, silent
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import VISION_PREFIX
from reference.config import FastVLMConfig

Map = npt.NDArray[np.float64]
"""[B, C, H, W]."""

_MAX_IMAGE_SIZE = 256
_NUM_IMAGES = 8
_FIRST_ATTENTION_STAGE = 3
_STAGES = (("0",), ("1", "2"), ("3", "4"), ("5", "6", "7"), ("8", "9", "10"))
"""Indices in `network` by stage: patch embedding, positional encoding, blocks, if it has them."""
_EPSILON = 1e-5


def calibrate(config: FastVLMConfig, seed: int, progress: Progress = silent) -> Calibration:
    """Measure the vision tower that `VisionStatistics(seed)` draws, stage by stage."""
    shapes = {
        name.removeprefix(VISION_PREFIX): shape
        for name, shape in expected_tensors(config).items()
        if name.startswith(VISION_PREFIX)
    }
    tower = _Tower(
        config=config, shapes=shapes, drawn=VisionStatistics(seed=seed), progress=progress
    )
    size = min(_MAX_IMAGE_SIZE, config.vision.image_size)
    tower.run(natural_images(_NUM_IMAGES, size, seed))
    return Calibration(row_factors=tower.row_factors, tensors=tower.tensors)


def natural_images(count: int, size: int, seed: int) -> Map:
    """[count, 3, size, size] in 0..1, with the statistics that matter of photographs.

    Texture whose amplitude falls off as 1/frequency, covered by flat rectangles of all sizes
    (edges, even areas), of different brightness and contrast; every fourth with the black bars of
    `pad`.
    """
    generator = Source(seed=seed, name="calibration images").generator("values")
    images = np.stack([_natural_image(generator, size) for _ in range(count)])
    bar = size // 6
    images[::4, :, :bar] = 0.0
    images[::4, :, size - bar :] = 0.0
    return images


def _natural_image(generator: np.random.Generator, size: int) -> Map:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((4, size, size))) / frequency
    texture = np.fft.irfft2(spectrum, s=(size, size))
    texture /= texture.std(axis=(1, 2), keepdims=True)
    # The channels of a photograph are much alike: the fourth texture is their common one.
    image = texture[3] + 0.4 * texture[:3] + 0.3 * generator.standard_normal((3, 1, 1))
    for _ in range(40):
        height, width = (size * generator.uniform(0.1, 1.0, size=2) ** 3).astype(int) + 1
        top = generator.integers(0, size - height + 1)
        left = generator.integers(0, size - width + 1)
        colour = 1.2 * generator.standard_normal() + 0.6 * generator.standard_normal((3, 1, 1))
        patch = image[:, top : top + height, left : left + width]
        patch[...] = colour + 0.2 * (patch - patch.mean(axis=(1, 2), keepdims=True))
    brightness, contrast = generator.uniform(0.25, 0.65), generator.uniform(0.1, 0.35)
    clipped: Map = np.clip(brightness + contrast * image, 0.0, 1.0)
    return clipped


@dataclass(kw_only=True)
class _Tower:
    """One pass through the tower; fills `row_factors` and `tensors` on its way."""

    config: FastVLMConfig
    shapes: Mapping[str, tuple[int, ...]]
    drawn: VisionStatistics
    progress: Progress
    row_factors: dict[str, Floats] = field(default_factory=dict)
    tensors: dict[str, Floats] = field(default_factory=dict)

    def run(self, x: Map) -> Map:
        """[B, 3, S, S] -> the map before squeeze-and-excite."""
        x = _gelu(self._folded("patch_embed.0.reparam_conv", x, stride=2))
        x = _gelu(self._folded("patch_embed.1.reparam_conv", x, stride=2))
        x = _gelu(self._folded("patch_embed.2.reparam_conv", x))
        for stage, indices in enumerate(_STAGES):
            self.progress(stage, len(_STAGES), f"calibrating stage {stage} of the vision tower")
            if stage > 0:
                embed = f"network.{indices[0]}.proj"
                x = _gelu(self._folded(f"{embed}.0.lkb_reparam", x, stride=2))
                x = _gelu(self._folded(f"{embed}.1.reparam_conv", x))
            attention = stage >= _FIRST_ATTENTION_STAGE
            if attention:
                x = self._conv(f"network.{indices[1]}.reparam_conv", x)
            for block in range(self.config.vision.depths[stage]):
                prefix = f"network.{indices[-1]}.{block}"
                x = self._attention_block(prefix, x) if attention else self._repmixer(prefix, x)
        return self._folded("conv_exp.reparam_conv", x)

    def _repmixer(self, prefix: str, x: Map) -> Map:
        x = self._conv(f"{prefix}.token_mixer.reparam_conv", x)
        return x + self._get(f"{prefix}.layer_scale") * self._convffn(f"{prefix}.convffn", x)

    def _attention_block(self, prefix: str, x: Map) -> Map:
        normed = self._layer_norm(f"{prefix}.norm", x)
        mixed = self._attention(f"{prefix}.token_mixer", normed)
        x = x + self._get(f"{prefix}.layer_scale_1") * mixed
        return x + self._get(f"{prefix}.layer_scale_2") * self._convffn(f"{prefix}.convffn", x)

    def _convffn(self, prefix: str, x: Map) -> Map:
        y = _depthwise(x, self._get(f"{prefix}.conv.conv.weight"), stride=1)
        mean, variance = y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3))
        norm = f"{prefix}.conv.bn"
        self.tensors[f"{norm}.running_mean"] = mean.astype(np.float32)
        self.tensors[f"{norm}.running_var"] = variance.astype(np.float32)
        scale = self._get(f"{norm}.weight") / np.sqrt(variance + _EPSILON)
        y = _per_channel(scale) * (y - _per_channel(mean))
        y += _per_channel(self._get(f"{norm}.bias"))
        return self._conv(f"{prefix}.fc2", _gelu(self._conv(f"{prefix}.fc1", y)))

    def _layer_norm(self, prefix: str, x: Map) -> Map:
        centred = x - x.mean(axis=1, keepdims=True)
        y = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
        weight, bias = self._get(f"{prefix}.weight"), self._get(f"{prefix}.bias")
        normed: Map = _per_channel(weight) * y + _per_channel(bias)
        return normed

    def _attention(self, prefix: str, x: Map) -> Map:
        batch, channels, height, width = x.shape
        head_dim = self.config.vision.head_dim
        qkv = self._get(f"{prefix}.qkv.weight") @ x.reshape(batch, channels, -1)
        query, key, value = np.moveaxis(
            qkv.reshape(batch, 3, channels // head_dim, head_dim, -1), 1, 0
        )
        logits = np.swapaxes(query, -1, -2) @ key / np.sqrt(head_dim)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (value @ np.swapaxes(weights, -1, -2)).reshape(batch, channels, -1)
        flat = self._get(f"{prefix}.proj.weight") @ mixed
        flat += self._get(f"{prefix}.proj.bias")[:, None]
        out: Map = flat.reshape(batch, channels, height, width)
        return out

    def _folded(self, name: str, x: Map, *, stride: int = 1) -> Map:
        """A convolution that holds its BatchNorm: its outputs get a drawn mean and scale."""
        y = _convolve(x, self._get(f"{name}.weight"), stride=stride)
        source = Source(seed=self.drawn.seed, name=name)
        count = (y.shape[1],)
        std = log_normal(source.generator("folded scale"), count, sigma=0.25)
        mean = np.float32(0.3) * heavy_tailed(source.generator("folded mean"), count)
        factor = std / np.sqrt(y.var(axis=(0, 2, 3)) + _EPSILON)
        bias = mean - factor * y.mean(axis=(0, 2, 3))
        self.row_factors[f"{name}.weight"] = factor.astype(np.float32)
        self.tensors[f"{name}.bias"] = bias.astype(np.float32)
        out: Map = _per_channel(factor) * y + _per_channel(bias)
        return out

    def _conv(self, name: str, x: Map) -> Map:
        y = _convolve(x, self._get(f"{name}.weight"), stride=1)
        return y + _per_channel(self._get(f"{name}.bias"))

    def _get(self, name: str) -> Map:
        return self.drawn.tensor(name, self.shapes[name]).astype(np.float64)


def _convolve(x: Map, weight: Map, *, stride: int) -> Map:
    """Same-padded convolution of the three kinds that the tower has."""
    outputs, inputs, side, _ = weight.shape
    if side == 1:
        batch, channels, height, width = x.shape
        flat = weight.reshape(outputs, inputs) @ x.reshape(batch, channels, -1)
        return flat.reshape(batch, outputs, height, width)
    if inputs == 1:
        return _depthwise(x, weight, stride=stride)
    # The only dense convolution beyond 1x1 is the first, which reads three channels.
    taps = _taps(x, side, stride)
    batch, _, height, width = taps[0][1].shape
    out = np.zeros((batch, outputs, height * width))
    for (i, j), tap in taps:
        out += weight[:, :, i, j] @ tap.reshape(batch, inputs, -1)
    return out.reshape(batch, outputs, height, width)


def _depthwise(x: Map, weight: Map, *, stride: int) -> Map:
    """Grouped by input channel; outputs per input are neighbours."""
    outputs, _, side, _ = weight.shape
    taps = _taps(np.repeat(x, outputs // x.shape[1], axis=1), side, stride)
    out = np.zeros(taps[0][1].shape)
    for (i, j), tap in taps:
        out += _per_channel(weight[:, 0, i, j]) * tap
    return out


def _taps(x: Map, side: int, stride: int) -> list[tuple[tuple[int, int], Map]]:
    """For each place in the kernel the part of the padded map that it reads."""
    pad = side // 2
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return [
        ((i, j), padded[:, :, i : i + height : stride, j : j + width : stride])
        for i in range(side)
        for j in range(side)
    ]


def _per_channel(values: npt.NDArray[np.floating]) -> Map:
    return values.astype(np.float64).reshape(1, -1, 1, 1)


def _gelu(x: Map) -> Map:
    """GELU with erf after Abramowitz and Stegun 7.1.26, which errs by at most 1.5e-7."""
    z = np.abs(x)
    z *= np.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = np.full_like(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series *= t
        series += coefficient
    series *= t
    np.square(z, out=z)
    np.negative(z, out=z)
    series *= np.exp(z, out=z)
    erf = np.sign(x, out=t) * (1 - series)
    erf += 1
    erf *= x
    erf *= 0.5
    return erf
