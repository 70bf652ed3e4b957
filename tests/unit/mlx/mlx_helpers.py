"""What the MLX tests share besides fixtures."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fastvlm_compile.export.mlx.export import MlxExport, export_mlx
from fastvlm_compile.export.mlx.names import MlxLayout
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    QuantizedEntry,
    QuantizedWeights,
    open_quantized,
    write_index,
    write_tensor,
)
from reference.checkpoint.tensors import Checkpoint

Choose = Callable[[str, Role], Affine | None]

IN_APP: tuple[Role, ...] = ("embedding", "head", "language", "projector")


def symmetric(bits: int, block_size: int) -> Affine:
    assert bits in (4, 8)
    return Affine(bits=4 if bits == 4 else 8, block_size=block_size, symmetric=True)


def all_in_app(scheme: Affine) -> Choose:
    """Every matrix that Apple's app holds."""
    return lambda name, role: scheme if role in IN_APP else None


def rounded(weight: np.ndarray, scheme: Affine) -> QuantizedTensor:
    """Symmetric round to nearest, written out once more so that the tests stand alone."""
    rows = len(weight)
    blocks = weight.astype(np.float32).reshape(rows, -1, scheme.block_size)
    middle = 2 ** (scheme.bits - 1)
    scales = (np.abs(blocks).max(axis=-1) / (middle - 1)).astype(np.float16)
    divisor = np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
    codes = np.clip(np.round(blocks / divisor) + middle, 0, 2 * middle - 1)
    return QuantizedTensor(
        scheme=scheme,
        codes=codes.astype(np.uint8).reshape(weight.shape),
        scales=scales,
        zero_points=np.empty(0, dtype=np.uint8),
        tables=np.empty(0, dtype=np.float16),
    )


def write_quantized(folder: Path, tensors: Mapping[str, QuantizedTensor]) -> QuantizedWeights:
    folder.mkdir()
    for name, tensor in tensors.items():
        write_tensor(folder, name, tensor)
    entries = {
        name: QuantizedEntry(
            scheme=tensor.scheme,
            shape=tensor.shape,
            method="round_to_nearest",
            relative_error=0.0,
            size_bytes=tensor.size_bytes,
        )
        for name, tensor in tensors.items()
    }
    write_index(folder, entries)
    return open_quantized(folder)


def quantize(checkpoint: Checkpoint, folder: Path, choose: Choose) -> QuantizedWeights:
    tensors = {}
    for name, info in checkpoint.tensors.items():
        scheme = choose(name, role_of(name, info.shape))
        if scheme is not None and not (name == "lm_head.weight" and checkpoint.tied):
            tensors[name] = rounded(checkpoint.read(name).float().numpy(), scheme)
    return write_quantized(folder, tensors)


def write_mlx(
    checkpoint: Checkpoint,
    quantized: QuantizedWeights | None,
    out: Path,
    *,
    layout: MlxLayout = "mlx_vlm",
    **changes: object,
) -> Path:
    out.mkdir()
    export_mlx(MlxExport(layout=layout, **changes), checkpoint, quantized, out, silent)  # type: ignore[arg-type]
    return out


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))
