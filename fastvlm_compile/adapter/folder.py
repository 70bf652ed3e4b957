"""Which folder is a LoRA fine-tune, and where its base is."""

from pathlib import Path

from fastvlm_compile.adapter.config import CONFIG_FILE, load_adapter_config
from reference.errors import CheckpointError

ADAPTER_STEM = "adapter_model"
TRAINABLES_STEM = "non_lora_trainables"
_WEIGHT_PATTERNS = ("model*.safetensors*", "pytorch_model*")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of its own.

    Beside whole weights an adapter is not applied: who merged it has often left it there.
    """
    if not (folder / CONFIG_FILE).is_file():
        return False
    return not any(file for pattern in _WEIGHT_PATTERNS for file in folder.glob(pattern))


def base_of(folder: Path, chosen: Path | None) -> Path:
    """The checkpoint's folder that an adapter belongs on.

    Args:
        folder: of the adapter.
        chosen: named by the user; otherwise the adapter's own word counts, if it is the name of a
            folder here, from the working folder or from the adapter's.

    Raises:
        CheckpointError: it is not here.
    """
    if chosen is not None:
        if not chosen.is_dir():
            raise CheckpointError(f"{chosen}: the base is missing: there is no such folder")
        return chosen
    name = load_adapter_config(folder).base
    candidates = (Path(name), folder / name) if name else ()
    for candidate in candidates:
        if (candidate / "config.json").is_file() and not candidate.samefile(folder):
            return candidate
    raise CheckpointError(
        f"{folder}: a LoRA adapter on {name or 'an unnamed base'}, which is no folder here",
        hint="give the checkpoint that it was trained on: --base DIR, or `base` beside the "
        "recipe's checkpoint.path",
    )


def weight_file(folder: Path, stem: str) -> Path | None:
    """`STEM.safetensors`, else `STEM.bin`; None if there is neither."""
    for suffix in ("safetensors", "bin"):
        path = folder / f"{stem}.{suffix}"
        if path.is_file():
            return path
    return None
