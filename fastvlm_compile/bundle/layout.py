"""Where things lie in a bundle, for those who write it and those who read it."""

from collections.abc import Sequence
from typing import Literal

from fastvlm_compile.bundle.manifest import Variant

GOLDENS = "goldens"

RuntimeName = Literal["onnxruntime", "torch", "ml_program", "coreml", "mlx"]
TARGETS: dict[RuntimeName, str] = {
    "onnxruntime": "onnx",
    "torch": "torch",
    "ml_program": "coreml",
    "coreml": "coreml",
    "mlx": "mlx",
}
"""What can answer from a bundle, and the target that it needs."""

_TIMED: tuple[RuntimeName, ...] = ("onnxruntime", "coreml", "mlx")
"""Those whose times stand beside the quality of the variants that they ran."""

_LANGUAGE = "language.json"


def timed_as(runtime: str, name: str) -> tuple[str, str, str]:
    """What a latency run calls a variant -> target, variant, and Core ML's compute units.

    Empty are the target of a runtime whose times stand beside no variant, and units elsewhere.
    """
    targets = {str(each): TARGETS[each] for each in _TIMED}
    variant, _, units = name.partition(" ")
    return targets.get(runtime, ""), variant, units


def quantized_goldens(quantization: str) -> str:
    """Where the outputs of the reference with quantized weights lie."""
    return f"{GOLDENS}/quantized/{quantization}"


def coreml_folder(shipped: Sequence[str], precision: str) -> str:
    """The packages of the first precision that is shipped lie where Apple's app looks for them."""
    first = bool(shipped) and precision == shipped[0]
    return "coreml" if first else f"coreml/{precision}"


def shipped_of(variants: Sequence[Variant], target: str) -> tuple[Variant, ...]:
    """The variants of a target that the bundle holds."""
    return tuple(each for each in variants if each.target == target and each.files)


def has_language(variant: Variant) -> bool:
    """Whether a variant of Core ML is a whole model, and not the vision tower alone."""
    return any(name.rpartition("/")[2] == _LANGUAGE for name in variant.files)


def runtimes_of(variants: Sequence[Variant]) -> tuple[RuntimeName, ...]:
    """What can answer from a bundle with these variants."""
    return tuple(runtime for runtime in TARGETS if answering(variants, runtime))


def answering(variants: Sequence[Variant], runtime: RuntimeName) -> tuple[Variant, ...]:
    """The variants that a runtime can answer from."""
    target = TARGETS[runtime]
    found = shipped_of(variants, target)
    return tuple(v for v in found if has_language(v)) if target == "coreml" else found
