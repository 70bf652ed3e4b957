"""Canonical tensor names in the two MLX layouts.

Sources: the tensor names that the FastVLM model of Apple's app asks for (ml-fastvlm, `app/`), and
those of mlx-vlm's `fastvlm` model (0.7.10), whose module names these are.
"""

from typing import Literal

from reference.checkpoint.names import LM_HEAD, PROJECTOR_PREFIX, VISION_PREFIX

MlxLayout = Literal["apple_app", "mlx_vlm"]
"""Apple's app has its vision tower in Core ML; mlx-vlm has the whole model in MLX."""

LANGUAGE_PREFIX = "language_model."

_PROJECTORS: dict[MlxLayout, dict[str, str]] = {
    "apple_app": {
        "0": "multi_modal_projector.linear_0",
        "2": "multi_modal_projector.linear_2",
    },
    "mlx_vlm": {"0": "mm_projector.0", "2": "mm_projector.2"},
}
_TOWER = "vision_tower.vision_model."
_STEM, _MLX_STEM = "patch_embed.", "patch_embed.blocks."
_COUNTER = ".num_batches_tracked"


def to_mlx(name: str, layout: MlxLayout) -> str | None:
    """Canonical name -> its name in `layout`, None where that layout has no place for it.

    BatchNorm's step counters have a place in neither, the vision tower none in Apple's app.
    """
    if name.endswith(_COUNTER):
        return None
    if name.startswith(VISION_PREFIX):
        if layout == "apple_app":
            return None
        inner = name.removeprefix(VISION_PREFIX)
        if inner.startswith(_STEM):
            inner = _MLX_STEM + inner.removeprefix(_STEM)
        return _TOWER + inner
    if name.startswith(PROJECTOR_PREFIX):
        layer, kind = name.removeprefix(PROJECTOR_PREFIX).split(".")
        return f"{_PROJECTORS[layout][layer]}.{kind}"
    assert name == LM_HEAD or name.startswith("model."), f"{name} belongs to no part of FastVLM"
    return LANGUAGE_PREFIX + name


def module_of(mlx_name: str) -> str:
    """The MLX module that a weight belongs to: `mm_projector.0.weight` -> `mm_projector.0`."""
    return mlx_name.removesuffix(".weight")
