"""Weights of every kind that palettization meets, and errors counted without its code."""

import numpy as np

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE_HALVES = np.unique(HALVES[np.isfinite(HALVES)]).astype(np.float64)


def to_bfloat16(values):
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def weight(kind, shape, seed=0):
    """Float32 [O, I]: float16, bfloat16 or full float32 values, also with heavy tails."""
    rng = np.random.default_rng(seed)
    heavy = kind.startswith("heavy")
    draw = rng.standard_t(3, shape) if heavy else rng.standard_normal(shape)
    values = (draw * 0.03 * np.exp(0.25 * rng.standard_normal((shape[0], 1)))).astype(np.float32)
    if kind.endswith("float16"):
        return values.astype(np.float16).astype(np.float32)
    return to_bfloat16(values) if kind.endswith("bfloat16") else values


KINDS = ("float16", "bfloat16", "float32", "heavy float16", "heavy bfloat16", "heavy float32")


def table_error(x, w, table):
    """Least weighted squared error of values with a table."""
    table = np.asarray(table, dtype=np.float64)
    distances = np.abs(np.asarray(x, dtype=np.float64)[:, None] - table).min(axis=1)
    return float((w * distances**2).sum())


def group_errors(values, restored, groups):
    """[G] squared errors."""
    off = values.astype(np.float64) - restored.astype(np.float64)
    return (off.reshape(groups, -1) ** 2).sum(axis=1)
