"""Compressed weights decompress to what coremltools says they are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from ml_program_building import TARGETS, Function, Program, ct, mb, mismatch, save, types

from validation.runtimes.ml_program import decompress
from validation.runtimes.ml_program.cache import ConstantCache
from validation.runtimes.ml_program.executable import load


def codes(rng: np.random.Generator, bits: int, shape: Sequence[int]) -> np.ndarray:
    """Random unsigned integers in coremltools' own sub-byte type."""
    dtype = np.uint8 if bits == 8 else getattr(types, f"np_uint{bits}_dtype")
    return rng.integers(0, 2**bits, shape).astype(np.uint8).astype(dtype)


def save_constants(
    make: Callable[[], Sequence[Any]], path: Path, *, opset: int
) -> tuple[Path, list[np.ndarray]]:
    """A package whose results are compressed constants (each times one), and what they are."""
    with Function({"one": mb.placeholder(shape=(1,))}, TARGETS[opset]) as function:
        weights = make()
        outputs = []
        for index, weight in enumerate(weights):
            plain = weight if weight.dtype is types.fp32 else mb.cast(x=weight, dtype="fp32")
            outputs.append(mb.mul(x=plain, y=function.inputs["one"], name=f"w{index}"))
        function.set_outputs(outputs)
    wanted = [np.asarray(weight.op.materialized_val_inference()) for weight in weights]
    program = Program()
    program.add_function("main", function)
    return save(program, path, opset=opset, passes=ct.PassPipeline.EMPTY), wanted


def check_constants(make: Callable[[], Sequence[Any]], path: Path, *, opset: int = 8) -> None:
    package, wanted = save_constants(make, path, opset=opset)
    found = load(package).run({"one": np.ones(1, np.float32)})
    failures = {
        name: mismatch(found[name], want, 1e-6)
        for name, want in ((f"w{i}", want) for i, want in enumerate(wanted))
    }
    assert not any(failures.values()), failures


@pytest.mark.parametrize("opset", [6, 7])
def test_the_compressions_of_ios16_decompress(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(opset)

    def make() -> list[Any]:
        found = []
        for kind in (np.int8, np.uint8):
            data = rng.integers(*((-128, 128) if kind is np.int8 else (0, 256)), (5, 7)).astype(
                kind
            )
            for axis, size in ((0, 5), (-1, 7)):
                found.append(
                    mb.constexpr_affine_dequantize(
                        quantized_data=data,
                        zero_point=rng.integers(0, 100, size).astype(kind),
                        scale=rng.random(size, dtype=np.float32),
                        axis=np.int32(axis),
                    )
                )
            found.append(
                mb.constexpr_affine_dequantize(
                    quantized_data=data,
                    zero_point=kind(7),
                    scale=np.float32(0.3),
                    axis=np.int32(0),
                )
            )
        for bits in (1, 2, 4, 6, 8):
            packed = rng.integers(0, 256, (bits * 35 + 7) // 8).astype(np.uint8)
            found.append(
                mb.constexpr_lut_to_dense(
                    indices=packed,
                    lut=rng.standard_normal(2**bits, dtype=np.float32),
                    shape=np.array([5, 7], np.uint32),
                )
            )
        mask = rng.integers(0, 2, 40).astype(np.uint8)
        mask[35:] = 0
        found.append(
            mb.constexpr_sparse_to_dense(
                nonzero_data=rng.standard_normal(int(mask.sum()), dtype=np.float32),
                mask=np.packbits(mask, bitorder="little"),
                shape=np.array([5, 7], np.uint32),
            )
        )
        return found

    check_constants(make, tmp_path / "ios16.mlpackage", opset=opset)


def test_half_precision_constants_are_cast(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float16)
    check_constants(
        lambda: [mb.constexpr_cast(source_val=values, output_dtype="fp32")],
        tmp_path / "cast.mlpackage",
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_palettes_per_group_and_of_vectors_decompress(bits: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits)

    def make() -> list[Any]:
        found = []
        for shape, groups in (
            ((6, 8), (1, 1)),
            ((6, 8), (3, 1)),
            ((6, 8), (2, 4)),
            ((4, 3, 2), (2, 3, 1)),
        ):
            lut = rng.standard_normal((*groups, 2**bits, 1), dtype=np.float32)
            found.append(mb.constexpr_lut_to_dense(indices=codes(rng, bits, shape), lut=lut))
        for axis, groups in ((0, (1, 1)), (1, (1, 1)), (0, (1, 4)), (-1, (3, 1))):
            lut = rng.standard_normal((*groups, 2**bits, 3), dtype=np.float32)
            found.append(
                mb.constexpr_lut_to_dense(
                    indices=codes(rng, bits, (6, 8)), lut=lut, vector_axis=np.int32(axis)
                )
            )
        return found

    check_constants(make, tmp_path / "palette.mlpackage")


def test_blockwise_scales_and_offsets_of_every_type_decompress(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = {
        types.np_int4_dtype: (-8, 8),
        types.np_uint4_dtype: (0, 16),
        np.int8: (-128, 128),
        np.uint8: (0, 256),
    }

    def make() -> list[Any]:
        found = []
        for dtype, (low, high) in kinds.items():
            for shape, blocks in (
                ((6, 8), (6, 2)),
                ((6, 8), (1, 1)),
                ((6, 9), (2, 3)),
                ((2, 4, 6), (2, 1, 3)),
            ):
                data = (
                    rng.integers(low, high, shape)
                    .astype(np.int16)
                    .astype(np.int8 if low else np.uint8)
                )
                offset = rng.integers(low, high, blocks).astype(data.dtype).astype(dtype)
                scale = rng.random(blocks, dtype=np.float32)
                given = {"data": data.astype(dtype), "scale": scale}
                found.append(mb.constexpr_blockwise_shift_scale(**given))
                found.append(mb.constexpr_blockwise_shift_scale(**given, offset=offset))
        return found

    check_constants(make, tmp_path / "blocks.mlpackage")


def test_sparse_forms_of_every_compression_decompress(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def make() -> list[Any]:
        mask = (rng.random((6, 8)) < 0.4).astype(np.uint8)
        bitmask, kept = mask.astype(types.np_uint1_dtype), int(mask.sum())
        plain = mb.constexpr_sparse_to_dense(
            nonzero_data=rng.standard_normal(kept, dtype=np.float32), mask=bitmask
        )
        scaled = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=bitmask,
            nonzero_data=rng.integers(-128, 128, kept).astype(np.int8),
            scale=rng.random((6, 2), dtype=np.float32),
            offset=rng.integers(-128, 128, (6, 2)).astype(np.int8),
        )
        found = [plain, mb.constexpr_sparse_to_dense(mask=scaled[0], nonzero_data=scaled[1])]
        for axis, width in ((None, 1), (0, 2), (1, 3)):
            given = {} if axis is None else {"vector_axis": np.int32(axis)}
            looked_up = mb.constexpr_lut_to_sparse(
                indices_mask=bitmask,
                indices_nonzero_data=codes(rng, 3, (kept,)),
                lut=rng.standard_normal((2, 1, 8, width), dtype=np.float32),
                **given,
            )
            found.append(mb.constexpr_sparse_to_dense(mask=looked_up[0], nonzero_data=looked_up[1]))
        return found

    check_constants(make, tmp_path / "sparse.mlpackage")


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 16, 3)
        self.linear = torch.nn.Linear(16, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def small() -> Any:
    torch.manual_seed(0)
    traced = torch.jit.trace(Small().eval(), torch.zeros(1, 4, 8, 8))
    return ct.convert(
        traced,
        inputs=[ct.TensorType("x", (1, 4, 8, 8))],
        outputs=[ct.TensorType("y")],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )


def palettize(**how: Any) -> Callable[[Any], Any]:
    config = cto.OpPalettizerConfig(weight_threshold=0, **how)
    return lambda model: cto.palettize_weights(model, cto.OptimizationConfig(config))


def quantize(**how: Any) -> Callable[[Any], Any]:
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, **how)
    return lambda model: cto.linear_quantize_weights(model, cto.OptimizationConfig(config))


def prune(model: Any) -> Any:
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def prune_and_palettize(model: Any) -> Any:
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=0))
    return cto.palettize_weights(prune(model), config, joint_compression=True)


def prune_and_quantize(model: Any) -> Any:
    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0))
    return cto.linear_quantize_weights(prune(model), config, joint_compression=True)


def palettize_and_quantize_the_tables(model: Any) -> Any:
    config = cto.OptimizationConfig(
        cto.OpLinearQuantizerConfig(weight_threshold=0, granularity="per_tensor")
    )
    tables = palettize(mode="uniform", nbits=4)(model)
    return cto.linear_quantize_weights(tables, config, joint_compression=True)


COMPRESS = {
    "palette_4": palettize(mode="uniform", nbits=4),
    "palette_6": palettize(mode="uniform", nbits=6),
    "palette_3_grouped": palettize(
        mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=4
    ),
    "palette_vectors": palettize(nbits=4, cluster_dim=2, granularity="per_tensor"),
    "palette_of_int8": palettize_and_quantize_the_tables,
    "int8": quantize(),
    "uint8_asymmetric": quantize(mode="linear", dtype="uint8"),
    "int4_blocks": quantize(dtype="int4", granularity="per_block", block_size=4),
    "sparse": prune,
    "sparse_palette": prune_and_palettize,
    "sparse_int8": prune_and_quantize,
}


@pytest.mark.parametrize("how", COMPRESS)
def test_models_compressed_by_coremltools_run_as_their_decompressed_twins(
    how: str, small: Any, tmp_path: Path
) -> None:
    compressed = COMPRESS[how](small)
    compressed.save(str(tmp_path / "small.mlpackage"))
    cto.decompress_weights(compressed).save(str(tmp_path / "whole.mlpackage"))
    x = {"x": np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)}
    found = load(tmp_path / "small.mlpackage").run(x)["y"]
    wanted = load(tmp_path / "whole.mlpackage").run(x)["y"]
    assert not mismatch(found, wanted, 1e-6)


def test_the_cache_of_decompressed_weights_is_bounded_and_changes_nothing(
    small: Any, tmp_path: Path
) -> None:
    quantize()(small).save(str(tmp_path / "small.mlpackage"))
    x = {"x": np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)}
    results = []
    for limit in (0, 2304, 1 << 20):  # nothing; the convolution's weight alone; everything
        cache = ConstantCache(limit)
        package = load(tmp_path / "small.mlpackage", cache=cache)
        results += [package.run(x)["y"], package.run(x)["y"]]
        assert cache.held_bytes <= limit
    assert cache.held_bytes == 4 * (16 * 4 * 9 + 32 * 16)
    assert all(np.array_equal(results[0], result) for result in results)


@pytest.mark.parametrize("values_at_once", [1, 24, 2**22])
def test_pieces_of_any_size_give_the_same_values(
    values_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups along rows, along columns, along both and along neither, with and without offsets."""
    monkeypatch.setattr(decompress, "_VALUES_AT_ONCE", values_at_once)
    rng = np.random.default_rng(0)
    data = rng.integers(-8, 8, (12, 8)).astype(np.int8)
    for counts in ((1, 1), (12, 1), (12, 2), (4, 8), (3, 4), (1, 8)):
        scale = rng.random(counts).astype(np.float16)
        offset = rng.integers(-8, 8, counts).astype(np.int8)
        spread = np.kron(scale.astype(np.float32), np.ones((12 // counts[0], 8 // counts[1]), "f4"))
        moved = np.kron(offset, np.ones((12 // counts[0], 8 // counts[1]), np.int8))
        (found,) = decompress.blockwise_shift_scale({"data": data, "scale": scale})
        assert np.array_equal(found, data.astype(np.float32) * spread), counts
        given = {"data": data, "scale": scale, "offset": offset}
        (found,) = decompress.blockwise_shift_scale(given)
        assert np.array_equal(found, (data.astype(np.float32) - moved) * spread), counts
        lut = rng.standard_normal((*counts, 16, 1)).astype(np.float16)
        indices = rng.integers(0, 16, (12, 8)).astype(np.uint8)
        wanted = [
            [
                lut[row * counts[0] // 12, column * counts[1] // 8, indices[row, column], 0]
                for column in range(8)
            ]
            for row in range(12)
        ]
        (found,) = decompress.lut_to_dense({"indices": indices, "lut": lut})
        assert np.array_equal(found, np.array(wanted, dtype=np.float32)), counts


def test_groups_that_do_not_divide_the_rows_are_refused() -> None:
    given = {"data": np.zeros((10, 4), np.int8), "scale": np.ones((4, 1), np.float16)}
    with pytest.raises(ValueError, match="4 groups of 10 rows"):
        decompress.blockwise_shift_scale(given)
