"""Made-up measurements in the shape of a whole build."""

from validation.measurement import Measurement

EXECUTORS = {
    "onnx": "onnxruntime 1",
    "coreml": "ML Program executor",
    "mlx": "mlx 1",
    "reference": "torch 2",
}
SIZES_MB = {
    ("onnx", "fp32"): (9.44, 9.5e-14, 1.0),
    ("onnx", "fp16"): (4.79, 1.9e-6, 1.0),
    ("onnx", "int8"): (2.68, 4.3e-4, 1.0),
    ("onnx", "int4"): (2.11, 3.4e-3, 0.998),
    ("onnx", "int4-fast"): (2.02, 9.1e-3, 0.992),
    ("onnx", "mixed"): (2.05, 2.2e-3, 0.998),
    ("coreml", "float16"): (4.87, 1.7e-6, 1.0),
    ("coreml", "float32"): (9.68, 1.1e-13, 1.0),
    ("coreml", "int8"): (2.62, 4.07e-4, None),
    ("coreml", "int4"): (2.08, 3.3e-3, None),
    ("coreml", "lut4"): (1.93, 7e-3, None),
    ("coreml", "lut6"): (2.26, 6.3e-4, None),
    ("coreml", "mixed"): (1.97, 2.5e-3, None),
    ("mlx", "fp16"): (4.81, 3.9e-13, 1.0),
    ("mlx", "int8"): (3.41, 1.24e-4, 1.0),
    ("mlx", "int4"): (2.95, 5.28e-3, 0.998),
    ("mlx", "mixed"): (2.93, 2.9e-3, 0.998),
}
"""Seventeen variants: megabytes, KL, task accuracy."""


def measured(
    target: str,
    variant: str,
    component: str,
    metric: str,
    value: float | None,
    *,
    reason: str = "",
) -> Measurement:
    return Measurement(
        target=target,
        variant=variant,
        component=component,
        metric=metric,
        value=value,
        executor="" if value is None or component == "files" else EXECUTORS[target],
        num_cases=100,
        not_run_reason=reason,
    )


def variant(
    target: str,
    name: str,
    *,
    size_bytes: float,
    kl: float,
    accuracy: float | None = None,
) -> tuple[Measurement, ...]:
    """What a build knows of one variant; no accuracy where the recipe asks it no questions."""
    features = "vision" if target == "coreml" else "vision_encoder"
    reason = "" if accuracy is not None else "asked no questions"
    values = (
        (features, "psnr_db", 40.5),
        ("decoder", "kl_mean", 2 * kl),
        ("decoder", "top1_agreement", 0.99),
        ("decoder", "top5_agreement", 0.975),
        ("end_to_end", "kl_mean", kl),
        ("end_to_end", "greedy_agreement", 0.9),
        ("files", "size_bytes", size_bytes),
        ("files", "bits_per_weight", size_bytes * 8 / 2e6),
    )
    lost = None if accuracy is None else 1 - accuracy
    return (
        *(measured(target, name, *each) for each in values),
        measured(target, name, "end_to_end", "task_accuracy", accuracy, reason=reason),
        measured(target, name, "end_to_end", "task_accuracy_drop", lost, reason=reason),
    )


def whole_build() -> tuple[Measurement, ...]:
    """All seventeen."""
    return tuple(
        each
        for (target, name), (mb, kl, accuracy) in SIZES_MB.items()
        for each in variant(target, name, size_bytes=mb * 1e6, kl=kl, accuracy=accuracy)
    )
