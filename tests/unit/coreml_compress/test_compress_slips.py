"""Every slip of an encoder is seen when a package is read back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compress_helpers import LUT4, LUT4_SCALED, PACKAGES, SCHEMES, edited, quantize, targets_of

from fastvlm_compile.export.coreml.check import operations
from fastvlm_compile.export.coreml.compress.check import check_compressed
from fastvlm_compile.export.coreml.compress.decode import same_arrays
from fastvlm_compile.export.coreml.compress.names import Target
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.scheme import Quantized
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights

pytestmark = pytest.mark.xdist_group("coreml-compress")  # one worker exports the packages


def neighbours_scale(tensor: QuantizedTensor) -> QuantizedTensor:
    return replace(tensor, scales=np.roll(tensor.scales, 1, axis=-1))


def zero_point_off_by_one(tensor: QuantizedTensor) -> QuantizedTensor:
    moved = tensor.zero_points.copy()
    moved.reshape(-1)[0] ^= 1
    return replace(tensor, zero_points=moved)


def nibbles_exchanged(tensor: QuantizedTensor) -> QuantizedTensor:
    pairs = tensor.codes.reshape(-1, 2)[:, ::-1]
    return replace(tensor, codes=pairs.reshape(tensor.shape).copy())


def one_code(tensor: QuantizedTensor) -> QuantizedTensor:
    codes = tensor.codes.copy()
    codes.reshape(-1)[-1] ^= 1
    return replace(tensor, codes=codes)


def tables_permuted(tensor: QuantizedTensor) -> QuantizedTensor:
    return replace(tensor, tables=np.roll(tensor.tables, 1, axis=1))


def tables_of_other_groups(tensor: QuantizedTensor) -> QuantizedTensor:
    return replace(tensor, tables=np.roll(tensor.tables, 1, axis=0))


def one_bit_of_a_scale(tensor: QuantizedTensor) -> QuantizedTensor:
    scales = tensor.scales.copy()
    scales.view(np.uint16).reshape(-1)[0] ^= 1
    return replace(tensor, scales=scales)


SLIPS = (
    neighbours_scale,
    one_bit_of_a_scale,
    zero_point_off_by_one,
    nibbles_exchanged,
    one_code,
    tables_permuted,
    tables_of_other_groups,
)


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_slip_in_any_array_is_told(
    float16: Path,
    compressed16: Path,
    quantized: QuantizedWeights,
    name: str,
    slip: Callable[[QuantizedTensor], QuantizedTensor],
) -> None:
    """The package against tensors that a fault was put into, in turn."""
    targets = targets_of(compressed16 / name, [*quantized.entries], "float16")

    def right(target: Target) -> QuantizedTensor:
        return quantized.read(target.name)

    check_compressed(float16 / name, compressed16 / name, targets, right)
    damaged = 0
    for stored, target in targets.items():
        tensor = right(target)
        try:
            wrong = slip(tensor)
        except (ValueError, IndexError):  # has no such array
            continue
        if same_arrays(wrong, tensor):
            continue
        damaged += 1
        with pytest.raises(ExportError, match=f"{stored} does not read back as"):
            check_compressed(
                float16 / name,
                compressed16 / name,
                targets,
                lambda wanted, at=target.name, bad=wrong: (
                    bad if wanted.name == at else right(wanted)
                ),
            )
        break
    assert damaged or name == "projector.mlpackage"  # it has two tensors, so not all schemes


def transposed_groups(spec: object) -> None:
    """Tables along the input channels instead of the output channels."""
    for operation in operations(spec):  # type: ignore[arg-type]
        if operation.type == "constexpr_lut_to_dense" and "lut" in operation.inputs:
            argument = operation.inputs["lut"].arguments[0]
            if argument.HasField("value"):
                sizes = argument.value.type.tensorType.dimensions
                groups = sizes[0].constant.size
                if groups > 1:
                    sizes[0].constant.size, sizes[1].constant.size = 1, groups
                    return
    raise AssertionError("no grouped table")


def transposed_blocks(spec: object) -> None:
    """Scales along the output channels."""
    for operation in operations(spec):  # type: ignore[arg-type]
        if operation.type == "constexpr_blockwise_shift_scale":
            sizes = operation.inputs["scale"].arguments[0].value.type.tensorType.dimensions
            if sizes[0].constant.size != sizes[1].constant.size:
                rows, blocks = (size.constant.size for size in (sizes[0], sizes[1]))
                sizes[0].constant.size, sizes[1].constant.size = blocks, rows
                return
    raise AssertionError("no blocks")


def other_epsilon(spec: object) -> None:
    """Something that compression has no business with."""
    norm = next(op for op in operations(spec) if op.type == "layer_norm")  # type: ignore[arg-type]
    del norm.inputs["epsilon"]


def shifted_norm(spec: object) -> None:
    """A dense constant that points at another one's bytes."""
    dense = [
        op.attributes["val"].blobFileValue
        for op in operations(spec)  # type: ignore[arg-type]
        if op.type == "const" and op.outputs[0].name.endswith("layernorm_weight_to_fp16")
    ]
    dense[0].offset = dense[1].offset


@pytest.mark.parametrize(
    "case",
    [
        (transposed_groups, "tables"),
        (transposed_blocks, "scales"),
        (other_epsilon, "other operations have changed"),
        (shifted_norm, "has changed"),
    ],
)
def test_a_wrong_axis_or_a_touched_neighbour_is_told(
    float16: Path,
    compressed16: Path,
    quantized: QuantizedWeights,
    tmp_path: Path,
    case: tuple[Callable[[object], None], str],
) -> None:
    change, message = case
    name = "decoder.mlpackage"
    package = edited(compressed16 / name, tmp_path / "edited", change)
    targets = targets_of(package, [*quantized.entries], "float16")
    with pytest.raises(ExportError, match=message):
        check_compressed(
            float16 / name, package, targets, lambda target: quantized.read(target.name)
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_comparing_tells_every_scheme_from_every_slip(scheme: Quantized) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 32), dtype=np.float32)
    tensor = quantize(weight, scheme)
    read_back = tensor
    if scheme == LUT4_SCALED:  # a table a channel is how it comes back
        tables = np.repeat(tensor.tables, LUT4.group_size, axis=0)
        read_back = replace(tensor, scheme=replace(LUT4_SCALED, group_size=1), tables=tables)
    assert same_arrays(read_back, tensor)
    for slip in SLIPS:
        try:
            wrong = slip(tensor)
        except (ValueError, IndexError):  # has no such array
            continue
        if not np.array_equal(wrong.dequantize(), tensor.dequantize()):
            assert not same_arrays(read_back, wrong), slip.__name__
