"""What was written reads back bit for bit, by other code than wrote it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compress_helpers import PACKAGES, compress_all, targets_of, weight_file

from fastvlm_compile.export.coreml.canonical import canonical_digest, read_spec, spec_path
from fastvlm_compile.export.coreml.compress.decode import decode_package, same_arrays
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.quantize.weights_file import QuantizedWeights

pytestmark = pytest.mark.xdist_group("coreml-compress")  # one worker exports the packages


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("form", ["16", "32"])
def test_codes_scales_and_tables_read_back_bit_for_bit(
    request: pytest.FixtureRequest, quantized: QuantizedWeights, form: str, name: str
) -> None:
    package = request.getfixturevalue(f"compressed{form}") / name
    targets = targets_of(package, [*quantized.entries], f"float{form}")
    found = decode_package(package)
    assert found.keys() == targets.keys()
    for stored, target in targets.items():
        assert same_arrays(found[stored], quantized.read(target.name)), target.name


def materialized(operation: Any) -> np.ndarray:
    """By coremltools' own formulas; it leaves out tables that are computed themselves."""
    lut = operation.inputs.get("lut")
    if lut is None or lut.val is not None:
        return np.asarray(operation.materialized_val_inference())
    tables = lut.op.materialized_val_inference()
    return np.asarray(type(operation).decompress(operation.indices.val, tables, None))


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("form", ["16", "32"])
def test_coremltools_loads_the_package_and_finds_the_same_weights(
    request: pytest.FixtureRequest, quantized: QuantizedWeights, form: str, name: str
) -> None:
    package = request.getfixturevalue(f"compressed{form}") / name
    targets = targets_of(package, [*quantized.entries], f"float{form}")
    with quiet_coremltools():
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load

        model = ct.models.MLModel(
            read_spec(package),
            weights_dir=str(weight_file(package).parent),
            skip_model_load=True,
        )
        program = load(
            model.get_spec(),
            specification_version=9,
            file_weights_dir=str(weight_file(package).parent),
        )
    compared = set()
    for function in program.functions.values():
        for operation in function.operations:
            if operation.op_type.startswith("constexpr_") and operation.name in targets:
                found = materialized(operation)
                expected = quantized.read(targets[operation.name].name).dequantize()
                # coremltools computes in the precision of the scales.
                limit = 0 if form == "32" else 2e-3 * np.abs(expected).max()
                assert np.abs(found.astype(np.float32) - expected).max() <= limit, operation.name
                compared.add(operation.name)
    assert compared == targets.keys()


@pytest.mark.parametrize("form", ["16", "32"])
def test_functions_share_what_they_shared(
    request: pytest.FixtureRequest, quantized: QuantizedWeights, form: str
) -> None:
    package = request.getfixturevalue(f"compressed{form}") / "decoder.mlpackage"
    found = {}
    spec = read_spec(package)
    for name, function in spec.mlProgram.functions.items():
        found[name] = {
            (operation.outputs[0].name, parameter): argument.arguments[0].value.blobFileValue.offset
            for operation in function.block_specializations["CoreML8"].operations
            if operation.type.startswith("constexpr_")
            for parameter, argument in operation.inputs.items()
        }
    assert found["prefill"] == found["decode"]
    names = {
        target.name for target in targets_of(package, [*quantized.entries], "float16").values()
    }
    codes = sum(
        -(-quantized.read(name).codes.size * quantized.entries[name].scheme.bits // 8)
        for name in names
    )
    dense = weight_file(request.getfixturevalue(f"float{form}") / "decoder.mlpackage")
    assert codes < weight_file(package).stat().st_size < 0.6 * dense.stat().st_size


@pytest.mark.parametrize("form", ["16", "32"])
def test_two_runs_give_the_same_bytes_and_leave_no_dense_weight_behind(
    request: pytest.FixtureRequest, quantized: QuantizedWeights, tmp_path: Path, form: str
) -> None:
    dense = request.getfixturevalue(f"float{form}")
    first, second = (
        request.getfixturevalue(f"compressed{form}"),
        compress_all(dense, quantized, tmp_path / "again"),
    )
    for name in PACKAGES:
        assert canonical_digest(first / name) == canonical_digest(second / name)
        assert canonical_digest(first / name) != canonical_digest(dense / name)
        for path in sorted((first / name).rglob("*")):
            other = second / name / path.relative_to(first / name)
            assert path.is_dir() or path.read_bytes() == other.read_bytes()
    assert (first / "language.json").read_bytes() == (dense / "language.json").read_bytes()


@pytest.mark.parametrize("form", ["16", "32"])
def test_without_quantized_tensors_the_weight_file_is_the_converters_own(
    request: pytest.FixtureRequest, tmp_path: Path, form: str
) -> None:
    """Byte for byte what MILBlob's writer made: ours has no format of its own."""
    dense = request.getfixturevalue(f"float{form}")
    same = compress_all(dense, QuantizedWeights(entries={}, folders={}), tmp_path / "same")
    for name in ("fastvithd.mlpackage", "projector.mlpackage"):
        assert weight_file(same / name).read_bytes() == weight_file(dense / name).read_bytes()
    for name in PACKAGES:
        assert spec_path(same / name).stat().st_size == spec_path(dense / name).stat().st_size
