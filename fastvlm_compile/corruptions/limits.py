"""The gates that a single fault is judged by."""

from collections.abc import Mapping

from fastvlm_compile.corruptions.artifacts import Target
from validation.gates import Gate
from validation.measurement import METRICS

VARIANT = "int4"
"""Under which everything is measured here."""

CONVERSION_SUFFIXES: Mapping[Target, str] = {
    "onnx": "_conversion",
    "coreml": "_precision",
    "mlx": "_conversion",
}
"""What the names of components end in that are compared with the dequantized reference."""

_LIMITS: Mapping[Target, tuple[tuple[str, str, float], ...]] = {
    "onnx": (
        ("vision_encoder", "psnr_db", 35.0),
        ("embed_tokens_conversion", "max_abs", 0.0),
        ("decoder_conversion", "relative_l2", 1e-5),
    ),
    "coreml": (
        ("vision_precision", "relative_l2", 2e-2),
        ("projector_precision", "relative_l2", 2e-3),
        ("embedding", "relative_l2", 0.15),
        ("decoder_precision", "relative_l2", 2e-2),
        ("decoder_precision", "kl_mean", 1e-3),
    ),
    "mlx": (
        ("vision_encoder_conversion", "relative_l2", 1e-5),
        ("embed_tokens_conversion", "max_abs", 0.0),
        ("decoder_conversion", "relative_l2", 1e-5),
    ),
}
"""(component, metric, limit) of the variant int4 in recipes/tiny.yaml, without those on answers."""


def gates_of(target: Target) -> tuple[Gate, ...]:
    """The recipe's gates on single components."""
    return tuple(_gate(target, *limit) for limit in _LIMITS[target])


def is_conversion(target: Target, component: str) -> bool:
    """Whether a component's numbers are those against the dequantized reference."""
    return component.endswith(CONVERSION_SUFFIXES[target])


def _gate(target: Target, component: str, metric: str, threshold: float) -> Gate:
    lower = METRICS[metric].better == "lower"
    return Gate(
        target=target,
        variant=VARIANT,
        component=component,
        metric=metric,
        max=threshold if lower else None,
        min=None if lower else threshold,
        why="as in recipes/tiny.yaml",
    )
