"""Which constant of which package holds a tensor of the checkpoint.

coremltools makes the names of constants of the modules' parameter names: dots become underscores,
`torch.export` puts `p_` in front, and a constant that the converter cast ends in `_to_fp16`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastvlm_compile.export.coreml.contract import Precision
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD, PROJECTOR_PREFIX, VISION_PREFIX

LAYERS_PREFIX = "model.layers."

_CAST: dict[Precision, str] = {"float16": "_to_fp16", "float32": ""}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a constant holds: rows of a tensor.

    Attributes:
        name: canonical.
        first, count: rows; a count of 0 stands for all of them.
    """

    name: str
    first: int = 0
    count: int = 0


Targets = Mapping[str, Target]
"""By name of the constant."""


def vision_targets(names: Iterable[str], precision: Precision) -> dict[str, Target]:
    """Constants of `fastvithd.mlpackage` for those names that are the tower's."""
    return _targets(names, VISION_PREFIX, "p_tower_", precision)


def projector_targets(names: Iterable[str], precision: Precision) -> dict[str, Target]:
    """Constants of `projector.mlpackage` for those names that are the projector's."""
    return _targets(names, PROJECTOR_PREFIX, "p_", precision)


def layer_targets(names: Iterable[str], layer: int, precision: Precision) -> dict[str, Target]:
    """Constants of a decoder package for those names that are of one layer."""
    return _targets(names, f"{LAYERS_PREFIX}{layer}.", f"layers_{layer}_", precision)


def head_target(*, tied: bool, first: int, count: int, precision: Precision) -> dict[str, Target]:
    """The constant of a decoder package for rows of the output head."""
    name = EMBED_TOKENS if tied else LM_HEAD
    stored = LM_HEAD.replace(".", "_") + _CAST[precision]
    return {stored: Target(name=name, first=first, count=count)}


def _targets(
    names: Iterable[str], prefix: str, stored_prefix: str, precision: Precision
) -> dict[str, Target]:
    return {
        stored_prefix + name.removeprefix(prefix).replace(".", "_") + _CAST[precision]: Target(
            name=name
        )
        for name in names
        if name.startswith(prefix)
    }
