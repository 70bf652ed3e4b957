"""How the made-up weights of projector and language model are distributed.

The residual stream grows by a fixed share with every sublayer, as in trained models; a few of its
channels carry values far above the rest, which the norms then scale down again; some norm channels
stand out by themselves; keys have large biases; the logits have the spread that leaves a few nats
of entropy. Figures are root mean squares unless they say otherwise.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastvlm_compile.checkpoint.draws import (
    Floats,
    Source,
    heavy_tailed,
    log_normal,
    matrix_blocks,
)
from reference.config import FastVLMConfig

_EMBEDDING = 0.05
_IMAGE_FEATURES = 0.1
_VISION_FEATURES = 1.0
"""What the vision tower gives, measured."""
_GROWTH = 0.4
"""Each sublayer adds this much of what the residual stream holds."""
_OUTLIER_SHARE = 1 / 224
_OUTLIER_FACTOR = 16.0
_NORMED = 1.0
"""Ordinary channels after a norm in the middle of the model."""
_QUERY_KEY = 1.2
"""Gives attention logits of deviation 1.5 to 2.5: some positions count, none takes all."""
_ATTENDED = 0.9
"""Values averaged over positions."""
_GATED = 1.0
"""silu(a) * b of two normal draws."""
_LOGITS = 3.4
_FINAL_NORM = 6.0
_ROW_SIGMA = 0.25


@dataclass(frozen=True, kw_only=True)
class LanguageStatistics:
    """Draws tensors of the projector and the language model; canonical names."""

    config: FastVLMConfig
    seed: int

    def blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[Floats]:
        """Values of one tensor, row by row, as float32 blocks."""
        source = Source(seed=self.seed, name=name)
        if name.startswith("model.mm_projector."):
            yield from self._projector(source, shape)
        elif len(shape) == 1:
            yield self._vector(source, shape[0])
        elif "layers" in name:
            yield from self._layer_matrix(source, shape)
        else:
            yield from self._table(source, shape)

    def _projector(self, source: Source, shape: tuple[int, ...]) -> Iterator[Floats]:
        if len(shape) == 1:
            scale = 0.1 if ".0." in source.name else 0.2 * _IMAGE_FEATURES
            yield scale * heavy_tailed(source.generator("values"), shape)
            return
        rows, columns = shape
        into, out = (_VISION_FEATURES, 1.0) if ".0." in source.name else (0.65, _IMAGE_FEATURES)
        yield from matrix_blocks(
            source,
            (rows, columns),
            std=out / into / math.sqrt(columns),
            row_sigma=_ROW_SIGMA,
            centred=True,
        )

    def _table(self, source: Source, shape: tuple[int, ...]) -> Iterator[Floats]:
        """The embedding, or the output head."""
        rows, columns = shape
        embedding = source.name == "model.embed_tokens.weight"
        # The final norm leaves ordinary channels at its own scale times what outliers leave them.
        logits_std = _LOGITS / (_FINAL_NORM * self._share_of_ordinary * math.sqrt(columns))
        yield from matrix_blocks(
            source,
            (rows, columns),
            std=_EMBEDDING if embedding else logits_std,
            row_sigma=0.1,
            column_sigma=0.3 if embedding else 0.15,
            column_factors=self._on_outliers(3.0) if embedding else None,
        )

    def _layer_matrix(self, source: Source, shape: tuple[int, ...]) -> Iterator[Floats]:
        rows, columns = shape
        part = source.name.rsplit(".", 2)[1]
        fan_in = math.sqrt(columns)
        if part in {"o_proj", "down_proj"}:
            into = _ATTENDED if part == "o_proj" else _GATED
            yield from matrix_blocks(
                source,
                (rows, columns),
                std=self._written(source.name, part) / into / fan_in,
                row_sigma=_ROW_SIGMA,
                row_factors=self._on_outliers(_OUTLIER_FACTOR),
            )
            return
        gain = _QUERY_KEY if part in {"q_proj", "k_proj"} else 1.0
        yield from matrix_blocks(
            source, (rows, columns), std=gain / _NORMED / fan_in, row_sigma=_ROW_SIGMA
        )

    def _vector(self, source: Source, count: int) -> Floats:
        generator = source.generator("values")
        if source.name.endswith("norm.weight"):
            return self._norm(source, count)
        draw = heavy_tailed(generator, (count,))
        part = source.name.rsplit(".", 2)[1]
        if part == "v_proj":
            return np.float32(0.1) * draw
        # A few channels of q and, more so, of k have biases far above what the input gives them.
        far = np.float32(3.0 if part == "q_proj" else 8.0)
        outlying = source.generator("outliers").random(count, dtype=np.float32) < 0.02
        return np.where(outlying, far, np.float32(0.5)) * draw

    def _norm(self, source: Source, count: int) -> Floats:
        final = source.name == "model.norm.weight"
        level = _FINAL_NORM if final else _NORMED / self._share_of_ordinary
        weight = log_normal(source.generator("values"), (count,), median=level, sigma=0.2)
        outlying = source.generator("outliers").random(count, dtype=np.float32) < 0.005
        weight = np.where(outlying, 3 * weight, weight)
        return weight * self._on_outliers(0.15)

    def _written(self, name: str, part: str) -> float:
        """What a sublayer adds to an ordinary channel of the residual stream."""
        match = re.search(r"layers\.(\d+)\.", name)
        assert match is not None, name
        sublayer = 2 * int(match[1]) + (part == "down_proj")
        growth = math.sqrt(1 + _GROWTH**2)
        return _EMBEDDING * _GROWTH * growth**sublayer

    def _on_outliers(self, factor: float) -> Floats:
        """[hidden]: `factor` on the outlier channels of the residual stream, 1 elsewhere."""
        factors = np.ones(self.config.text.hidden_size, dtype=np.float32)
        factors[self._outliers] = factor
        return factors

    @cached_property
    def _outliers(self) -> list[int]:
        hidden = self.config.text.hidden_size
        generator = Source(seed=self.seed, name="residual stream").generator("outliers")
        count = max(1, round(hidden * _OUTLIER_SHARE))
        return sorted(generator.choice(hidden, size=count, replace=False).tolist())

    @cached_property
    def _share_of_ordinary(self) -> float:
        """Ordinary channel over the root mean square of the stream, which outliers raise."""
        share = len(self._outliers) / self.config.text.hidden_size
        return 1 / math.sqrt(1 + share * (_OUTLIER_FACTOR**2 - 1))
