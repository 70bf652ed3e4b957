"""An MLX folder behind the `Runtime` interface; executed by `mlx`, on Linux by its CPU build."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache

from reference.decoding import Logits
from validation.runtimes.base import Floats, Ids
from validation.runtimes.mlx_model import (
    Compute,
    MlxFolderError,
    MlxModel,
    WholeModel,
    load_mlx,
    on_cpu,
)

Vision = Callable[[Floats], Floats]
"""Pixels [B, 3, S, S] in 0..1 -> features before the projector, [B, T, C]."""


class MlxRuntime:
    """Runs a loaded folder.

    Args:
        model: from `load_mlx`.
        vision: the tower of another runtime, for a folder of Apple's app, whose own tower is a Core
            ML package; None for a folder that has one.
    """

    executed_by_core_ml = False

    def __init__(self, model: MlxModel, *, vision: Vision | None = None) -> None:
        self._model = model
        self._vision = vision

    @property
    def executor(self) -> str:
        """`mlx 0.32.4 (GPU, float32)`: device and precision of the activations.

        And what takes products of many rows, where that is not mlx (see `mlx_products`).
        """
        device = "CPU" if on_cpu() else "GPU"
        products = "; products of many rows in numpy" if self._model.in_numpy else ""
        return f"mlx {version('mlx')} ({device}, {self._model.compute}{products})"

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, C], before the projector.

        Raises:
            MlxFolderError: the folder has no tower, and no other was given.
        """
        if self._vision is not None:
            return self._vision(pixel_values)
        modules = self._model.modules
        if not isinstance(modules, WholeModel):
            raise MlxFolderError(
                "the folder is in the layout of Apple's app, which has no vision tower",
                hint="give a tower to run beside it, or take the folder in mlx-vlm's layout",
            )
        images = self._array(pixel_values).transpose(0, 2, 3, 1)
        features = modules.vision_tower.vision_model(images)
        return _floats(features.reshape(len(images), -1, features.shape[-1]))

    def project(self, features: Floats) -> Floats:
        """[B, T, C] -> [B, T, H]."""
        return _floats(self._model.modules.project(self._array(features)))

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included."""
        return self.project(self.vision_features(pixel_values))

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return _floats(self._model.language.model.embed_tokens(mx.array(input_ids)))

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V]."""
        return _floats(self._model.language(None, input_embeddings=self._array(inputs_embeds)))

    def session(self, inputs_embeds: Floats) -> "MlxSession":
        """A new decoding of the prompt [1, L, H]."""
        return MlxSession(self._model, self._array(inputs_embeds))

    def _array(self, values: Floats) -> mx.array:
        return mx.array(values, dtype=getattr(mx, self._model.compute))


class MlxSession:
    """A `Session` over `mlx-lm`'s Qwen2 and its KV caches.

    Args:
        model: from `load_mlx`.
        inputs_embeds: the prompt [1, L, H].
    """

    def __init__(self, model: MlxModel, inputs_embeds: mx.array) -> None:
        self._language = model.language
        self._prompt = inputs_embeds
        self._caches = [KVCache() for _ in self._language.layers]

    def start(self) -> Logits:
        """Runs the prompt: logits after it, float32 [1, V].

        Its last position is a step of its own, as in `mlx_lm.generate_step`: so whatever the answer
        is, every matrix is multiplied by what multiplies few rows, too.
        """
        if self._prompt.shape[1] > 1:
            self._language.model(None, self._caches, self._prompt[:, :-1])
        return self._append(self._prompt[:, -1:])

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, [B]; the next logits, float32 [B, V]."""
        return self._append(self._language.model.embed_tokens(mx.array(token_ids[:, None])))

    def select(self, rows: Ids) -> None:
        """Row i of the caches becomes row `rows[i]`; only after `start`."""
        index = mx.array(rows)
        for cache in self._caches:
            cache.keys, cache.values = cache.keys[index], cache.values[index]

    def _append(self, inputs_embeds: mx.array) -> Logits:
        # The head sees the last position alone: of a long prompt all logits are hundreds of MB.
        language = self._language
        last = language.model(None, self._caches, inputs_embeds)[:, -1]
        if language.args.tie_word_embeddings:
            return _floats(language.model.embed_tokens.as_linear(last))
        return _floats(language.lm_head(last))


def open_mlx(
    folder: Path, *, vision: Vision | None = None, compute: Compute = "float32"
) -> MlxRuntime:
    """The runtime of a folder that `export_mlx` wrote.

    Args:
        folder: in either layout.
        vision: see `MlxRuntime`.
        compute: float32 shows what the folder holds: scales and biases become float32, in which
            dequantization is exact. float16 is what a device computes with: `mlx` then rounds
            `scale * code` and the sum with the bias, and its CPU kernel of quantized matrices (not
            that of plain ones) adds up products in float16, so that errors grow with the width.

    Raises:
        MlxFolderError, CheckpointError, ConfigError: see `load_mlx`.
    """
    return MlxRuntime(load_mlx(folder, compute), vision=vision)


def _floats(array: mx.array) -> Floats:
    return np.array(array.astype(mx.float32))
