"""The modules of an MLX folder, loaded: `mlx-lm`'s Qwen2, the projector, the tower if it is there.

Reads `config.json` and `model*.safetensors` as MLX's own loaders do, and shares no code with what
wrote them. Sources: `mlx_lm.utils.load_model`; `mlx.nn.quantize`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlx.core as mx
from mlx import nn
from mlx_lm.models import qwen2

from reference.checkpoint.storage import find_weight_files
from reference.config import FastVLMConfig, Qwen2Config, parse_config, read_config_json
from reference.errors import UserError
from validation.runtimes.mlx_products import multiply_in_numpy
from validation.runtimes.mlx_vision import FastViTHD
from validation.runtimes.mlx_widening import widen_late

Compute = Literal["float32", "float16"]

_QUANTIZATION_KEYS = ("quantization", "quantization_config")


class MlxFolderError(UserError):
    """An MLX folder is missing or damaged, or lacks a part that is asked for."""


class AppProjector(nn.Module):
    """The projector under the names of Apple's app."""

    def __init__(self, config: FastVLMConfig) -> None:
        super().__init__()
        self.linear_0 = nn.Linear(config.vision.out_channels, config.text.hidden_size)
        self.linear_2 = nn.Linear(config.text.hidden_size, config.text.hidden_size)

    def __call__(self, features: mx.array) -> mx.array:
        """[B, T, C] -> [B, T, H]."""
        return self.linear_2(nn.gelu(self.linear_0(features)))


class AppModel(nn.Module):
    """What Apple's app runs in MLX: language model and projector."""

    def __init__(self, config: FastVLMConfig, *, tied: bool) -> None:
        super().__init__()
        self.language_model = _language(config.text, tied=tied)
        self.multi_modal_projector = AppProjector(config)

    def project(self, features: mx.array) -> mx.array:
        """[B, T, C] -> [B, T, H]."""
        return self.multi_modal_projector(features)


class Tower(nn.Module):
    """The name under which mlx-vlm keeps the tower."""

    def __init__(self, config: FastVLMConfig) -> None:
        super().__init__()
        self.vision_model = FastViTHD(config.vision)


class WholeModel(nn.Module):
    """What mlx-vlm runs: everything."""

    def __init__(self, config: FastVLMConfig, *, tied: bool) -> None:
        super().__init__()
        hidden = config.text.hidden_size
        self.language_model = _language(config.text, tied=tied)
        self.mm_projector = [
            nn.Linear(config.vision.out_channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
        ]
        self.vision_tower = Tower(config)

    def project(self, features: mx.array) -> mx.array:
        """[B, T, C] -> [B, T, H]."""
        for layer in self.mm_projector:
            features = layer(features)
        return features


@dataclass(frozen=True, kw_only=True, eq=False)
class MlxModel:
    """A loaded folder.

    Attributes:
        modules: with weights, in evaluation mode.
        config: of the model.
        compute: precision of activations, and what scales, biases and float weights were cast to.
        in_numpy: whether numpy takes the products of many rows (see `mlx_products`): on a CPU, in
            float32.
    """

    modules: AppModel | WholeModel
    config: FastVLMConfig
    compute: Compute
    in_numpy: bool

    @property
    def language(self) -> qwen2.Model:
        """`mlx-lm`'s Qwen2."""
        return self.modules.language_model


def load_mlx(folder: Path, compute: Compute) -> MlxModel:
    """Load what `export_mlx` wrote.

    Raises:
        MlxFolderError: it is missing, damaged, or its tensors are not those the config promises.
        CheckpointError, ConfigError: there is no config or no weights, or it is not FastVLM's.
    """
    raw = read_config_json(folder)
    quantization = raw.get("quantization")
    plain = {key: value for key, value in raw.items() if key not in _QUANTIZATION_KEYS}
    config = parse_config(plain, source=str(folder / "config.json"))
    weights: dict[str, mx.array] = {}
    for path in find_weight_files_of_mlx(folder):
        weights |= _load(path)
    tied = "language_model.lm_head.weight" not in weights
    whole = any(name.startswith("mm_projector.") for name in weights)
    modules = WholeModel(config, tied=tied) if whole else AppModel(config, tied=tied)
    if quantization is not None:
        _quantize(modules, quantization, weights, folder)
    dtype = {"float32": mx.float32, "float16": mx.float16}[compute]
    late = {f"language_model.{name}" for name in widen_late(modules.language_model, dtype)}
    cast = [
        (
            name,
            array.astype(dtype)
            if mx.issubdtype(array.dtype, mx.floating) and name not in late
            else array,
        )
        for name, array in weights.items()
    ]
    try:
        modules.load_weights(cast, strict=True)
    except ValueError as error:
        raise MlxFolderError(
            f"{folder}: the tensors are not those its config.json promises: {error}",
            hint="is config.json from the same folder as the weights?",
        ) from None
    modules.eval()
    in_numpy = compute == "float32" and on_cpu()
    if in_numpy:
        multiply_in_numpy(modules)
    return MlxModel(modules=modules, config=config, compute=compute, in_numpy=in_numpy)


def on_cpu() -> bool:
    """Whether mlx computes on the CPU here."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def find_weight_files_of_mlx(folder: Path) -> tuple[Path, ...]:
    """`model.safetensors`, or the shards that the index names.

    Raises:
        CheckpointError: there are none.
        MlxFolderError: the index is damaged, or a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return find_weight_files(folder)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = tuple(folder / name for name in sorted(set(weight_map.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MlxFolderError(f"{index}: not an index of shards: {error!r}") from None
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise MlxFolderError(f"{index}: names {path.name}, which is not beside it")
    return paths


def _language(text: Qwen2Config, *, tied: bool) -> qwen2.Model:
    return qwen2.Model(
        qwen2.ModelArgs(
            model_type="qwen2",
            hidden_size=text.hidden_size,
            num_hidden_layers=text.num_hidden_layers,
            intermediate_size=text.intermediate_size,
            num_attention_heads=text.num_attention_heads,
            rms_norm_eps=text.rms_norm_eps,
            vocab_size=text.vocab_size,
            num_key_value_heads=text.num_key_value_heads,
            max_position_embeddings=text.max_position_embeddings,
            rope_theta=text.rope_theta,
            tie_word_embeddings=tied,
        )
    )


def _load(path: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise MlxFolderError(f"{path}: not a readable safetensors file: {error}") from None
    assert isinstance(loaded, dict), "a safetensors file is a table of arrays"
    return loaded


def _quantize(
    modules: nn.Module, quantization: object, weights: Mapping[str, mx.array], folder: Path
) -> None:
    """Make quantized modules where there are scales; a module's own numbers come first."""
    if not isinstance(quantization, dict):
        raise MlxFolderError(f"{folder / 'config.json'}: `quantization` is no table")

    def choice(path: str, module: nn.Module) -> bool | dict[str, object]:
        if f"{path}.scales" not in weights or not hasattr(module, "to_quantized"):
            return False
        own = quantization.get(path)
        return own if isinstance(own, dict) else True

    group_size, bits = quantization.get("group_size"), quantization.get("bits")
    if not isinstance(group_size, int) or not isinstance(bits, int):
        raise MlxFolderError(
            f"{folder / 'config.json'}: quantization: group_size {group_size!r}, bits {bits!r}"
        )
    nn.quantize(modules, group_size=group_size, bits=bits, class_predicate=choice)
