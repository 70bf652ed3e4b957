"""The decoder's packages are what their interface says, hold each weight once, and reproduce."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_language_helpers import CACHE_LENGTH, corrupted, decoder_config, export

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import canonical_digest, read_spec, spec_path
from fastvlm_compile.export.coreml.language.check import (
    check_chunk,
    operations,
    parameter_blobs,
    parameter_names,
)
from fastvlm_compile.export.coreml.language.convert import write_chunk
from fastvlm_compile.export.coreml.language.export import export_decoder
from fastvlm_compile.export.coreml.language.plan import split
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint

PACKAGE = "decoder.mlpackage"


def weight_file(package: Path) -> Path:
    return spec_path(package).parent / "weights" / "weight.bin"


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_weights_are_stored_once_for_both_functions(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, precision: str
) -> None:
    package = request.getfixturevalue(precision) / PACKAGE
    config = decoder_config(checkpoint, precision=precision)
    spec = read_spec(package)
    prefill, decode = parameter_blobs(spec, "prefill"), parameter_blobs(spec, "decode")
    assert prefill == decode
    assert decode.keys() == parameter_names(split(config)[0], config).keys()
    names = [name for name in checkpoint.tensors if name.startswith(("model.layers.", "lm_head."))]
    values = sum(int(np.prod(checkpoint.tensors[name].shape)) for name in names)
    item = 2 if precision == "float16" else 4
    size = weight_file(package).stat().st_size
    # Beyond the parameters: the rotary table, biases of zeros, and a record of 64 bytes per blob.
    assert values * item < size < 1.1 * values * item


def test_weights_read_back_are_those_of_the_checkpoint(
    float16: Path, checkpoint: Checkpoint
) -> None:
    package = float16 / PACKAGE
    blobs = parameter_blobs(read_spec(package), "decode")
    for name in checkpoint.tensors:
        if not name.startswith(("model.layers.", "model.norm.", "lm_head.")):
            continue
        expected = checkpoint.read(name).to(torch.float16).numpy().reshape(-1)
        stored = name.removeprefix("model.").replace(".", "_") + "_to_fp16"
        found = read_float_blob(weight_file(package), blobs.pop(stored))
        assert np.array_equal(found, expected), name
    assert blobs == {}


def test_the_state_is_one_tensor_per_kind_in_float16(float16: Path) -> None:
    float16_type = 65552  # ArrayFeatureType.FLOAT16 of Core ML's FeatureTypes.proto
    for function in read_spec(float16 / PACKAGE).description.functions:
        arrays = {state.name: state.type.stateType.arrayType for state in function.state}
        assert arrays.keys() == {"key_cache", "value_cache"}
        for array in arrays.values():
            assert list(array.shape) == [2, 2, CACHE_LENGTH, 16]
            assert array.dataType == float16_type


def test_the_sibling_has_no_state_as_core_mls_are_float16(float32: Path) -> None:
    for function in read_spec(float32 / PACKAGE).description.functions:
        assert not function.state
        assert {"key_cache", "value_cache"} <= {feature.name for feature in function.input}
        assert {"updated_key_cache", "updated_value_cache"} <= {
            feature.name for feature in function.output
        }


def test_decode_is_the_default_function(float16: Path) -> None:
    description = read_spec(float16 / PACKAGE).description
    assert description.defaultFunctionName == "decode"
    assert {function.name for function in description.functions} == {"prefill", "decode"}


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_attention_and_norms_are_single_ops_of_at_most_four_dimensions(
    request: pytest.FixtureRequest, precision: str
) -> None:
    spec = read_spec(request.getfixturevalue(precision) / PACKAGE)
    for function in ("prefill", "decode"):
        found = operations(spec, function)
        kinds = [operation.type for operation in found]
        assert kinds.count("scaled_dot_product_attention") == 2
        assert kinds.count("layer_norm") == 5
        assert not {"softmax", "matmul", "tile", "square", "pow", "rsqrt", "real_div"} & set(kinds)
        ranks = [len(op.outputs[0].type.tensorType.dimensions) for op in found if op.outputs]
        assert max(ranks) == 4


def test_the_package_describes_itself_without_author_or_date(float16: Path) -> None:
    metadata = read_spec(float16 / PACKAGE).description.metadata
    assert "layers 0..1 and vocabulary 0..799 (float16)" in metadata.shortDescription
    assert metadata.author == ""
    assert metadata.userDefined["fastvlm.context_length"] == "100"
    assert metadata.userDefined["fastvlm.cache_length"] == "128"
    assert not any("date" in key or key == "source" for key in metadata.userDefined)


def test_two_exports_in_two_folders_are_the_same_bytes(
    float16: Path, weights: Path, tmp_path: Path
) -> None:
    again = export(weights, tmp_path / "again", precision="float16")
    assert canonical_digest(again / PACKAGE) == canonical_digest(float16 / PACKAGE)
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert len(files) == 4  # manifest, program, weights, language.json
    for file in files:
        assert (again / file).read_bytes() == (float16 / file).read_bytes(), file


def test_only_the_tensors_of_the_chunk_are_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Listening:
        tensors = checkpoint.tensors

        def __init__(self) -> None:
            self.read_names: list[str] = []

        def read(self, name: str) -> torch.Tensor:
            self.read_names.append(name)
            return checkpoint.read(name)

    config = decoder_config(checkpoint, max_chunk_mb=0.062)
    source = Listening()
    write_chunk(split(config)[1], config, source, tmp_path / "second.mlpackage")
    assert source.read_names
    assert all(name.startswith("model.layers.1.") for name in source.read_names)


def test_a_weight_that_float16_cannot_hold_is_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    class Damaged:
        tensors = checkpoint.tensors

        def read(self, wanted: str) -> torch.Tensor:
            values = checkpoint.read(wanted)
            return values.float() * 1e9 if wanted == name else values

    config = decoder_config(checkpoint, precision="float16")
    with pytest.raises(ExportError, match="layers_1_mlp_up_proj_weight"):
        export_decoder(config, Damaged(), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def rename_output(spec: object) -> None:
    spec.description.functions[0].output[0].name = "probabilities"  # type: ignore[attr-defined]


def shorten_state(spec: object) -> None:
    state = spec.description.functions[0].state[0]  # type: ignore[attr-defined]
    state.type.stateType.arrayType.shape[2] = 64


def drop_function(spec: object) -> None:
    del spec.mlProgram.functions["prefill"]  # type: ignore[attr-defined]


def write_attention_out(spec: object) -> None:
    kind = "scaled_dot_product_attention"
    next(op for op in operations(spec, "decode") if op.type == kind).type = "softmax"  # type: ignore[arg-type]


def forget_a_norm(spec: object) -> None:
    kind = "layer_norm"
    next(op for op in operations(spec, "decode") if op.type == kind).type = "silu"  # type: ignore[arg-type]


def store_twice(spec: object) -> None:
    found = operations(spec, "decode")  # type: ignore[arg-type]
    constants = (op for op in found if op.type == "const")
    op = next(op for op in constants if op.outputs[0].name.startswith("layers_0_mlp"))
    op.attributes["val"].blobFileValue.offset += 64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename_output, "outputs are .*probabilities"),
        (shorten_state, "states are"),
        (drop_function, "functions are"),
        (write_attention_out, r"unexpected ops \['softmax'\]"),
        (forget_a_norm, "4 of layer_norm, expected 5"),
        (store_twice, "do not share their weights"),
    ],
)
def test_a_package_off_its_interface_is_refused(
    float16: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    damage: Callable[[object], None],
    message: str,
) -> None:
    config = decoder_config(checkpoint, precision="float16")
    (chunk,) = split(config)
    check_chunk(float16 / PACKAGE, chunk, config)
    folder = corrupted(float16, tmp_path / "damaged", damage)
    with pytest.raises(ExportError, match=message):
        check_chunk(folder / PACKAGE, chunk, config)


def test_language_json_names_every_package_in_order(pieces: Path) -> None:
    described = json.loads((pieces / "language.json").read_text(encoding="utf-8"))
    names = [chunk["package"] for chunk in described["chunks"]]
    assert names == [f"decoder_{number}_of_4.mlpackage" for number in (1, 2, 3, 4)]
    assert {path.name for path in pieces.iterdir()} == {*names, "language.json"}
    spans = [(chunk["layers"], chunk["vocabulary"]) for chunk in described["chunks"]]
    assert spans == [
        ({"first": 0, "count": 1}, None),
        ({"first": 1, "count": 1}, None),
        (None, {"first": 0, "count": 400}),
        (None, {"first": 400, "count": 400}),
    ]


def test_names_do_not_tell_what_the_process_did_before(
    float16: Path, weights: Path, tmp_path: Path
) -> None:
    from coremltools.converters.mil.mil import Builder

    Builder.name_count["coreml_update_state"] += 8  # as a conversion that failed leaves it
    again = export(weights, tmp_path / "again", precision="float16")
    assert canonical_digest(again / PACKAGE) == canonical_digest(float16 / PACKAGE)
