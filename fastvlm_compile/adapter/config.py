"""What an `adapter_config.json` says, as far as it decides how the adapter is merged.

Source: `LoraConfig` of PEFT 0.21 and `LoraLayer.update_layer`. A key that would change the
arithmetic in a way that is not done here is an error, and so is a key that nobody knows.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reference.errors import CheckpointError

CONFIG_FILE = "adapter_config.json"

_USED = (
    *("base_model_name_or_path", "peft_type", "r", "lora_alpha", "use_rslora"),
    *("target_modules", "init_lora_weights", "bias", "layers_to_transform", "exclude_modules"),
)
_IGNORED = (
    # Bookkeeping.
    *("auto_mapping", "revision", "task_type", "inference_mode", "peft_version", "runtime_config"),
    # Training only.
    *("lora_dropout", "loftq_config", "eva_config", "megatron_config", "megatron_core"),
    # Where layers are looked for; the tensors say which were found.
    "layers_pattern",
    # Such tensors are told by their names, and replace those of the base.
    "modules_to_save",
    # Means something together with other keys only, which are refused.
    *("qalora_group_size", "corda_config", "ensure_weight_tying"),
)
_OFF = (
    *("alora_invocation_tokens", "alpha_pattern", "arrow_config", "fan_in_fan_out"),
    *("layer_replication", "lora_bias", "rank_pattern", "target_parameters"),
    *("kasa_config", "lora_ga_config", "monteclora_config", "velora_config"),
    *("trainable_token_indices", "use_bdlora", "use_dora", "use_qalora"),
)
"""Each changes what the adapter computes; merged without it, the weights would be wrong."""

_PLAIN_INITIALS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Others (PiSSA, OLoRA, LoftQ, CorDA) change the base's weights before training."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """How the matrices of an adapter become one change of a weight."""

    rank: int
    alpha: float
    use_rslora: bool
    """Whether the change is divided by the root of the rank instead of by the rank."""
    target_modules: tuple[str, ...] | None
    """Names of the adapted layers or their ends; None where the file has a pattern or says
    nothing of each layer."""
    base: str
    """What it was trained on, as its author's machine called it; may be empty."""

    @property
    def scale(self) -> float:
        """Factor of `B @ A`."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


def load_adapter_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json` of an adapter's folder.

    Raises:
        CheckpointError: it is missing or damaged, or asks for what is not merged here.
    """
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}, so this is no LoRA adapter") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    _refuse_others(path, raw)
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise CheckpointError(f"{path}: r is {rank!r}, expected a whole number above 0")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise CheckpointError(f"{path}: lora_alpha is {alpha!r}, expected a number")
    rslora = raw.get("use_rslora", False)
    if not isinstance(rslora, bool):
        raise CheckpointError(f"{path}: use_rslora is {rslora!r}, expected true or false")
    base = raw.get("base_model_name_or_path") or ""
    return AdapterConfig(
        rank=rank,
        alpha=float(alpha),
        use_rslora=rslora,
        target_modules=_targets(raw),
        base=base if isinstance(base, str) else "",
    )


def _refuse_others(path: Path, raw: Mapping[str, object]) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{path}: peft_type is {kind!r}, only LORA can be merged")
    # Each PEFT writes the defaults of its newest methods: what is null or empty is not in use.
    given = {key for key, value in raw.items() if value not in (None, False, "", [], {})}
    unknown = sorted(given - {*_USED, *_IGNORED, *_OFF})
    if unknown:
        raise CheckpointError(
            f"{path}: unknown key {unknown[0]!r}",
            hint="merge the adapter with the PEFT that wrote it, and give the merged checkpoint",
        )
    wrong = [key for key in _OFF if raw.get(key)]
    if raw.get("bias", "none") != "none":
        wrong.append("bias")
    initial = raw.get("init_lora_weights", True)
    if not any(initial is plain or initial == plain for plain in _PLAIN_INITIALS):
        wrong.append("init_lora_weights")
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} is {raw[wrong[0]]!r}, which is not merged here",
            hint="merge the adapter with PEFT (`merge_and_unload`), and give the merged checkpoint",
        )


def _targets(raw: Mapping[str, object]) -> tuple[str, ...] | None:
    targets = raw.get("target_modules")
    partly = raw.get("layers_to_transform") is not None or raw.get("exclude_modules")
    if partly or not isinstance(targets, list):
        return None
    return tuple(str(name) for name in targets)
