"""How the made-up weights of FastViTHD are distributed.

Depthwise kernels are smooth bumps with rough edges; re-parameterised residuals hold the identity
that was folded into them; layer scales lie between 0.05 and 1. What depends on the values that
flow through the tower (BatchNorm's running statistics, and the convolutions into which a BatchNorm
was folded) comes from `calibration.py`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fastvlm_compile.checkpoint.draws import (
    Floats,
    Source,
    heavy_tailed,
    log_normal,
    matrix_blocks,
)

_ROW_SIGMA = 0.25
_AFTER_GELU = 0.65
"""Root mean square of GELU of a normal draw."""
_ATTENDED = 0.5
"""Values averaged over positions."""
_QUERY_KEY = 1.2
_IDENTITY_NOISE = {3: 0.04, 7: 0.015}
"""Side of a kernel that holds the identity -> scale of the rest."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on maps that flowed through the tower; empty before."""

    row_factors: Mapping[str, Floats] = field(default_factory=dict)
    """Weight -> [outputs], by which its rows are multiplied."""
    tensors: Mapping[str, Floats] = field(default_factory=dict)
    """Bias or running statistic -> its values."""


@dataclass(frozen=True, kw_only=True)
class VisionStatistics:
    """Draws tensors of the vision tower; names without the tower's prefix."""

    seed: int
    calibration: Calibration = field(default_factory=Calibration)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """All values of one tensor."""
        return np.concatenate(list(self.blocks(name, shape))).reshape(shape)

    def blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[Floats]:
        """Values of one tensor as float32 blocks of its rows."""
        if name in self.calibration.tensors:
            yield self.calibration.tensors[name].reshape(shape)
            return
        factors = self.calibration.row_factors.get(name)
        start = 0
        for block in self._raw_blocks(Source(seed=self.seed, name=name), shape):
            if factors is None:
                yield block
                continue
            count = block.shape[0]
            scales = factors[start : start + count]
            yield block * scales.reshape(count, *[1] * (block.ndim - 1))
            start += count

    def _raw_blocks(self, source: Source, shape: tuple[int, ...]) -> Iterator[Floats]:
        parts = source.name.split(".")
        if len(shape) == 4 and shape[1] == 1 and shape[2] > 1:
            yield self._depthwise(source, shape)
        elif len(shape) in (2, 4):
            yield from self._dense(source, shape)
        elif "layer_scale" in parts[-1]:
            scale = log_normal(source.generator("values"), shape, median=0.3, sigma=0.5)
            yield np.clip(scale, 0.05, 1.0)
        elif parts[-1] == "weight":
            # Of a BatchNorm or a LayerNorm.
            yield log_normal(source.generator("values"), shape, sigma=0.25)
        else:
            yield self._bias(source, shape)

    def _dense(self, source: Source, shape: tuple[int, ...]) -> Iterator[Floats]:
        """1x1 convolutions, linear layers and the first convolution; rows are outputs."""
        name = source.name
        rows, columns = shape[0], math.prod(shape[1:])
        into, factors = _AFTER_GELU, None
        if name.endswith("token_mixer.proj.weight"):
            into = _ATTENDED
        elif name.endswith("qkv.weight"):
            into = 1.0
            factors = np.repeat(
                np.array([_QUERY_KEY, _QUERY_KEY, 1.0], dtype=np.float32), rows // 3
            )
        elif name.endswith("fc1.weight") or not name.endswith("fc2.weight"):
            into = 1.0
        yield from matrix_blocks(
            source,
            (rows, columns),
            std=1 / into / math.sqrt(columns),
            row_sigma=_ROW_SIGMA,
            row_factors=factors,
            centred=not name.startswith(("patch_embed.0.", "head.")),
        )

    def _depthwise(self, source: Source, shape: tuple[int, ...]) -> Floats:
        rows, _, side, _ = shape
        generator = source.generator("values")
        noise = heavy_tailed(generator, (rows, side, side))
        if _holds_identity(source.name):
            # Noise that sums to zero: dozens of such kernels in a row must not blow up a channel.
            noise -= noise.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
            kernel = np.float32(_IDENTITY_NOISE[side]) * noise
            kernel[:, side // 2, side // 2] += 1
            return kernel.reshape(shape)
        signs = np.where(generator.random((rows, 1, 1), dtype=np.float32) < 0.5, -0.5, 0.5)
        kernel = _bump(side) * (signs.astype(np.float32) + noise)
        scales = log_normal(source.generator("rows"), (rows, 1, 1), sigma=_ROW_SIGMA)
        return np.float32(1 / side) * (kernel * scales).reshape(shape)

    def _bias(self, source: Source, shape: tuple[int, ...]) -> Floats:
        draw = heavy_tailed(source.generator("values"), shape)
        if "se.expand" in source.name:
            return np.float32(1.0) + draw
        small = _holds_identity(source.name) or source.name.endswith(("fc2.bias", "proj.bias"))
        return np.float32(0.03 if small else 0.2) * draw


def _holds_identity(name: str) -> bool:
    """RepMixers, positional encodings: a residual connection was folded into the kernel."""
    return "token_mixer.reparam_conv" in name or name.startswith(
        ("network.6.reparam_conv", "network.9.reparam_conv")
    )


def _bump(side: int) -> Floats:
    offset = np.arange(side, dtype=np.float64) - side // 2
    line = np.exp(-np.square(offset) / (2 * (side / 4) ** 2))
    return np.outer(line, line).astype(np.float32)
