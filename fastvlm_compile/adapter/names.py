"""Names of tensors in a LoRA fine-tune -> what they are, and of which tensor of the base.

PEFT wraps the model twice (`base_model.model.`) and each layer once (`.base_layer`,
`.modules_to_save.NAME`); files hold the names with or without the adapter's own name `default`.
Source: `get_peft_model_state_dict` of PEFT, and `train.py` and `builder.py` of LLaVA.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from reference.checkpoint.names import to_layout

Role = Literal["A", "B", "replacement"]

_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<role>[AB])(\.default)?\.weight")
_SAVED = re.compile(r"\.modules_to_save(\.default)?\.")
_UNKNOWN_LORA = re.compile(r"\blora_")


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What one stored tensor of a fine-tune is."""

    role: Role
    target: str
    """Canonical name of the base's tensor that it changes or replaces."""


def known_names(canonical: Iterable[str]) -> Mapping[str, str]:
    """A base's tensors by their names in either layout: a fine-tune may have been made in both."""
    names: dict[str, str] = {}
    for name in canonical:
        for layout in ("apple", "transformers"):
            other = to_layout(name, layout)
            if other is not None:
                names[other] = name
    return names


def meaning_of(stored: str, known: Mapping[str, str]) -> Meaning | str:
    """What a stored tensor is; else, in words, why it cannot be used.

    Args:
        stored: its name in the file.
        known: from `known_names`.
    """
    plain = _unwrapped(stored)
    match = _LORA.fullmatch(plain)
    if match is not None:
        target = f"{match['module']}.weight"
        role: Role = "A" if match["role"] == "A" else "B"
    elif _UNKNOWN_LORA.search(plain):
        return "is of a kind of LoRA that is not merged here"
    else:
        target, role = _SAVED.sub(".", plain), "replacement"
    if target not in known:
        return f"belongs to {target!r}, which the base has not"
    return Meaning(role=role, target=known[target])


def _unwrapped(name: str) -> str:
    name = name.removeprefix("base_model.model.")
    name = name.removeprefix("base_model.")
    # LLaVA takes one `model.` off where there are two.
    if name.startswith("model.model."):
        name = name.removeprefix("model.")
    return name.replace(".base_layer.", ".")
