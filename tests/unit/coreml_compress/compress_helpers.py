"""What the tests of compressed packages share besides fixtures."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastvlm_compile.export.coreml.compress.names import (
    Target,
    layer_targets,
    projector_targets,
    vision_targets,
)
from fastvlm_compile.export.coreml.compress.packages import (
    compress_decoder,
    compress_projector,
    compress_vision,
)
from fastvlm_compile.export.coreml.convert import VisionPackageConfig, export_vision_package
from fastvlm_compile.export.coreml.projector import ProjectorPackageConfig, export_projector
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, symmetric_zero_point
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    QuantizedEntry,
    QuantizedWeights,
    file_name,
    open_quantized,
    write_index,
    write_tensor,
)
from fastvlm_compile.stages.coreml_language import CoreMLDecoderConfig, decoder
from reference.checkpoint.tensors import Checkpoint, open_checkpoint

INT4 = Affine(bits=4, block_size=32, symmetric=True)
INT4_OFFSETS = Affine(bits=4, block_size=16, symmetric=False)
INT8 = Affine(bits=8, block_size=0, symmetric=True)
INT8_OFFSETS = Affine(bits=8, block_size=0, symmetric=False)
LUT4 = Palette(bits=4, group_size=8)
LUT4_SCALED = Palette(bits=4, group_size=8, channel_scale=True)

SCHEMES = (INT4, INT4_OFFSETS, INT8, INT8_OFFSETS, LUT4, LUT4_SCALED)

PREFILL_CHUNK = 8


def quantize(weight: np.ndarray, scheme: Quantized) -> QuantizedTensor:
    """By rounding to even steps: rough, and written without the quantizers, which it may not share
    a mistake with."""
    weight = weight.astype(np.float32)
    if isinstance(scheme, Affine):
        return _rounded(weight, scheme)
    return _palettized(weight, scheme)


def _rounded(weight: np.ndarray, scheme: Affine) -> QuantizedTensor:
    blocks = weight.reshape(len(weight), scheme.num_blocks(weight.shape), -1)
    top = 2**scheme.bits - 1
    if scheme.symmetric:
        scales = np.abs(blocks).max(2) / (top // 2)
        zero = np.full(scales.shape, symmetric_zero_point(scheme.bits))
    else:
        low, high = np.minimum(blocks.min(2), 0), np.maximum(blocks.max(2), 0)
        scales = (high - low) / top
        zero = np.rint(-low / np.maximum(scales, 1e-9))
    halves = np.maximum(scales, 1e-6).astype(np.float16)
    codes = np.rint(blocks / halves.astype(np.float32)[..., None]) + zero[..., None]
    return QuantizedTensor(
        scheme=scheme,
        codes=np.clip(codes, 0, top).astype(np.uint8).reshape(weight.shape),
        scales=halves,
        zero_points=np.empty(0, np.uint8) if scheme.symmetric else zero.astype(np.uint8),
        tables=np.empty(0, np.float16),
    )


def _palettized(weight: np.ndarray, scheme: Palette) -> QuantizedTensor:
    scales = np.empty(0, np.float16)
    if scheme.channel_scale:
        largest = np.abs(weight.reshape(len(weight), -1)).max(1)
        scales = np.maximum(largest, 1e-6).astype(np.float16)
        weight = weight / scales.astype(np.float32).reshape(-1, *[1] * (weight.ndim - 1))
    groups = weight.reshape(scheme.num_groups(weight.shape), -1)
    levels = (np.arange(2**scheme.bits) + 0.5) / 2**scheme.bits
    tables = np.quantile(groups, levels, axis=1).T.astype(np.float16)
    codes = np.stack(
        [
            np.abs(group[:, None] - table.astype(np.float32)).argmin(1)
            for group, table in zip(groups, tables, strict=True)
        ]
    )
    return QuantizedTensor(
        scheme=scheme,
        codes=codes.astype(np.uint8).reshape(weight.shape),
        scales=scales,
        zero_points=np.empty(0, np.uint8),
        tables=tables,
    )


def relative_error(weight: np.ndarray, tensor: QuantizedTensor) -> float:
    difference = weight.astype(np.float64) - tensor.dequantize()
    norm = float(np.linalg.norm(weight.astype(np.float64)))
    return float(np.linalg.norm(difference)) / norm if norm else 0.0


def write_quantized(
    checkpoint: Checkpoint, schemes: Mapping[str, Quantized], folder: Path
) -> QuantizedWeights:
    """A quantized checkpoint directory of the named tensors."""
    folder.mkdir()
    entries = {}
    for name, scheme in schemes.items():
        weight = checkpoint.read(name).float().numpy()
        tensor = quantize(weight, scheme)
        write_tensor(folder, name, tensor)
        entries[name] = QuantizedEntry(
            scheme=scheme,
            shape=tensor.shape,
            method="test",
            relative_error=relative_error(weight, tensor),
            size_bytes=tensor.size_bytes,
        )
    write_index(folder, entries)
    return open_quantized(folder)


def schemes_in_turn(checkpoint: Checkpoint) -> dict[str, Quantized]:
    """A scheme for every tensor that may have one; all of `SCHEMES` where they fit."""
    chosen: dict[str, Quantized] = {}
    for number, (name, info) in enumerate(sorted(checkpoint.tensors.items())):
        if role_of(name, info.shape) not in ("other", "vision_depthwise"):
            scheme = SCHEMES[number % len(SCHEMES)]
            chosen[name] = scheme if fits(scheme, info.shape) else INT8
    return chosen


def fits(scheme: Quantized, shape: tuple[int, ...]) -> bool:
    if isinstance(scheme, Palette):
        return shape[0] % scheme.group_size == 0
    return scheme.block_size == 0 or shape[1] % scheme.block_size == 0


def export_packages(checkpoint_dir: Path, out: Path, precision: str) -> Path:
    """All artifacts of one precision, as a build makes them, the decoder in one package."""
    out.mkdir()
    checkpoint = open_checkpoint(checkpoint_dir)
    exact = "float16" if precision == "float16" else "float32"
    vision, hidden = checkpoint.config.vision, checkpoint.config.text.hidden_size
    export_vision_package(
        VisionPackageConfig(vision=vision, precision=exact), checkpoint, out, silent
    )
    projector = ProjectorPackageConfig(vision=vision, hidden_size=hidden, precision=exact)
    export_projector(projector, checkpoint, out, silent)
    export_decoder(checkpoint_dir, out, precision, max_chunk_mb=1)
    return out


def export_decoder(checkpoint_dir: Path, out: Path, precision: str, *, max_chunk_mb: float) -> Path:
    out.mkdir(exist_ok=True)
    config = CoreMLDecoderConfig(
        context_length=60,
        prefill_chunk=PREFILL_CHUNK,
        max_chunk_mb=max_chunk_mb,
        precision="float16" if precision == "float16" else "float32",
    )
    decoder(config, {"weights": checkpoint_dir}, out, silent)
    return out


def compress_all(folder: Path, quantized: QuantizedWeights, out: Path) -> Path:
    """The packages of one precision compressed."""
    out.mkdir()
    compress_vision(folder, quantized, out, silent)
    compress_projector(folder, quantized, out, silent)
    compress_decoder(folder, quantized, out, silent, tied=False)
    return out


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, written out once more so that the tests stand alone."""
    assert found.shape == expected.shape
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def weight_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def edited(package: Path, out: Path, change: Callable[[object], None]) -> Path:
    """A copy of a package whose program was changed."""
    from fastvlm_compile.export.coreml.canonical import read_spec, spec_path

    out.mkdir()
    copy = out / package.name
    shutil.copytree(package, copy)
    spec = read_spec(copy)
    change(spec)
    spec_path(copy).write_bytes(spec.SerializeToString())
    return copy


def with_error(quantized: QuantizedWeights, name: str, error: float) -> QuantizedWeights:
    """The same tensors, one of which is said to be further from its weights."""
    entry = replace(quantized.entries[name], relative_error=error)
    return replace(quantized, entries={**quantized.entries, name: entry})


def rename(quantized: QuantizedWeights, old: str, new: str) -> QuantizedWeights:
    """The one tensor of a quantized checkpoint under another name."""
    folder = quantized.folders[old]
    shutil.copyfile(folder / file_name(old), folder / file_name(new))
    return QuantizedWeights(entries={new: quantized.entries[old]}, folders={new: folder})


PACKAGES = ("fastvithd.mlpackage", "projector.mlpackage", "decoder.mlpackage")


def targets_of(package: Path, names: list[str], precision: str) -> dict[str, Target]:
    exact = "float16" if precision == "float16" else "float32"
    if package.name == "fastvithd.mlpackage":
        return vision_targets(names, exact)
    if package.name == "projector.mlpackage":
        return projector_targets(names, exact)
    cast = "_to_fp16" if precision == "float16" else ""
    return {
        **layer_targets(names, 0, exact),
        **layer_targets(names, 1, exact),
        f"lm_head_weight{cast}": Target(name="lm_head.weight"),
    }
