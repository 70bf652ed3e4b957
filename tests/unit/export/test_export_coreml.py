"""The Core ML package is Apple's contract, holds the checkpoint's weights, and is quiet to make."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvlm_compile.export.coreml.blobs import read_float_blob
from fastvlm_compile.export.coreml.canonical import read_spec, spec_path
from fastvlm_compile.export.coreml.check import (
    VISION_OPS,
    check_norm_epsilons,
    check_package,
    op_counts,
    operations,
)
from fastvlm_compile.export.coreml.convert import VisionPackageConfig, export_vision_package
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from reference.checkpoint.names import VISION_PREFIX
from reference.checkpoint.tensors import Checkpoint

PACKAGE = "fastvithd.mlpackage"
PRECISIONS = ("float16", "float32")


def weights_of(package: Path) -> dict[str, np.ndarray]:
    """Every weight of the package by its MIL name, in the type it is stored in."""
    file = spec_path(package).parent / "weights" / "weight.bin"
    found = {}
    for operation in operations(read_spec(package)):
        value = operation.attributes.get("val")
        if value is not None and value.HasField("blobFileValue"):
            shape = [
                int(dim.constant.size) for dim in operation.outputs[0].type.tensorType.dimensions
            ]
            flat = read_float_blob(file, value.blobFileValue.offset)
            found[operation.outputs[0].name] = np.array(flat).reshape(shape)
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_input_and_output_are_float32_as_apples_app_declares_them(
    exported: Path, checkpoint: Checkpoint, precision: str
) -> None:
    spec = read_spec(exported / precision / PACKAGE)
    (image,), (features,) = spec.description.input, spec.description.output
    float32 = 65568  # ArrayFeatureType.FLOAT32 of Core ML's FeatureTypes.proto
    assert image.name == "images"
    assert list(image.type.multiArrayType.shape) == [1, 3, 128, 128]
    assert image.type.multiArrayType.dataType == float32
    assert features.name == "image_features"
    assert list(features.type.multiArrayType.shape) == [1, 4, 256]
    assert features.type.multiArrayType.dataType == float32
    assert spec.specificationVersion == 9  # iOS 18


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_package_describes_itself_without_author_or_date(
    exported: Path, precision: str
) -> None:
    description = read_spec(exported / precision / PACKAGE).description
    assert "128 x 128" in description.metadata.shortDescription
    assert precision in description.metadata.shortDescription
    assert description.metadata.author == ""
    assert "RGB" in description.input[0].shortDescription
    assert "before FastVLM's projector" in description.output[0].shortDescription
    assert description.metadata.userDefined["fastvlm.image_size"] == "128"
    assert not any("date" in key or key == "source" for key in description.metadata.userDefined)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_norms_and_attention_are_single_ops_that_square_nothing_in_float16(
    exported: Path, checkpoint: Checkpoint, precision: str
) -> None:
    ops = op_counts(read_spec(exported / precision / PACKAGE))
    assert ops.keys() <= VISION_OPS
    blocks = sum(checkpoint.config.vision.depths[3:])
    assert ops["layer_norm"] == ops["scaled_dot_product_attention"] == blocks
    assert ops["gelu"] > 0
    assert not {"pow", "square", "sqrt", "rsqrt", "real_div", "batch_norm"} & ops.keys()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_read_back_are_those_of_the_checkpoint(
    exported: Path, checkpoint: Checkpoint, precision: str
) -> None:
    found = weights_of(exported / precision / PACKAGE)
    dtype = torch.float16 if precision == "float16" else torch.float32
    suffix = "_to_fp16" if precision == "float16" else ""
    compared = 0
    # All but the depthwise convolutions that their BatchNorm is folded into, biases and scales.
    kept = ("reparam_conv.weight", "fc1.weight", "fc2.weight", "qkv.weight", "norm.weight")
    for name in checkpoint.tensors:
        if not (name.startswith(VISION_PREFIX) and name.endswith(kept)):
            continue
        mil_name = "p_tower_" + name.removeprefix(VISION_PREFIX).replace(".", "_") + suffix
        expected = checkpoint.read(name).to(dtype).numpy()
        assert np.array_equal(found[mil_name], expected), name
        compared += 1
    assert compared > 20
    assert {values.dtype.name for values in found.values()} == {precision}
    # Negative control: the comparison tells one weight from another of its shape.
    name = "patch_embed.1.reparam_conv.weight"
    other = checkpoint.read(VISION_PREFIX + name).to(dtype).numpy()[::-1]
    assert not np.array_equal(found[f"p_tower_{name.replace('.', '_')}{suffix}"], other)


def test_float16_stores_the_weights_in_half_the_bytes(exported: Path) -> None:
    sizes = {
        precision: sum(
            values.nbytes for values in weights_of(exported / precision / PACKAGE).values()
        )
        for precision in PRECISIONS
    }
    assert sizes["float16"] <= 0.51 * sizes["float32"]


@pytest.mark.parametrize(
    ("factor", "message"), [(1e6, "is stored in float32"), (float("nan"), "is not finite")]
)
def test_a_weight_that_float16_cannot_hold_is_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path, factor: float, message: str
) -> None:
    name = VISION_PREFIX + "patch_embed.1.reparam_conv.weight"

    class Damaged:
        tensors = checkpoint.tensors

        def read(self, wanted: str) -> torch.Tensor:
            values = checkpoint.read(wanted)
            return values.float() * factor if wanted == name else values

    config = VisionPackageConfig(vision=checkpoint.config.vision, precision="float16")
    with pytest.raises(ExportError, match=f"patch_embed_1_reparam_conv_weight.* {message}"):
        export_vision_package(config, Damaged(), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def damaged(exported: Path, out: Path, damage: Callable[[object], None]) -> Path:
    import shutil

    package = out / PACKAGE
    shutil.copytree(exported / "float16" / PACKAGE, package)
    spec = read_spec(package)
    damage(spec)
    spec_path(package).write_bytes(spec.SerializeToString())
    return package


def rename_output(spec: object) -> None:
    spec.description.output[0].name = "features"  # type: ignore[attr-defined]


def half_output(spec: object) -> None:
    spec.description.output[0].type.multiArrayType.dataType = 65552  # type: ignore[attr-defined]


def flat_output(spec: object) -> None:
    del spec.description.output[0].type.multiArrayType.shape[0]  # type: ignore[attr-defined]


def second_input(spec: object) -> None:
    spec.description.input.add().CopyFrom(spec.description.input[0])  # type: ignore[attr-defined]


def square(spec: object) -> None:
    next(op for op in operations(spec) if op.type == "relu").type = "square"


@pytest.mark.parametrize("damage", [rename_output, half_output, flat_output, second_input, square])
def test_a_package_off_apples_contract_is_refused(
    exported: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    damage: Callable[[object], None],
) -> None:
    check_package(exported / "float16" / PACKAGE, checkpoint.config.vision, "float16")
    package = damaged(exported, tmp_path, damage)
    with pytest.raises(ExportError, match=PACKAGE):
        check_package(package, checkpoint.config.vision, "float16")


def test_a_blob_is_only_read_where_there_is_one(exported: Path) -> None:
    file = spec_path(exported / "float16" / PACKAGE).parent / "weights" / "weight.bin"
    assert read_float_blob(file, 64).size > 0
    with pytest.raises(ExportError, match="no float blob at 0"):
        read_float_blob(file, 0)
    with pytest.raises(ExportError, match="the file ends before it"):
        read_float_blob(file, file.stat().st_size)


def test_converting_says_nothing_on_the_terminal(
    exported: Path, capfd: pytest.CaptureFixture[str], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    config = VisionPackageConfig(vision=checkpoint.config.vision, precision="float16")
    capfd.readouterr()
    export_vision_package(config, checkpoint, tmp_path, silent)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_what_was_hidden_is_told_when_the_conversion_fails() -> None:
    level = logging.getLogger("coremltools").level

    def fail() -> None:
        with quiet_coremltools():
            print("the last thing coremltools said")
            raise ValueError("no such op")

    with pytest.raises(ValueError, match="no such op") as caught:
        fail()
    assert "the last thing coremltools said" in caught.value.__notes__[0]
    assert logging.getLogger("coremltools").level == level


def test_a_norm_with_another_epsilon_is_refused(exported: Path) -> None:
    package = exported / "float32" / PACKAGE
    check_norm_epsilons(package, 1e-5)
    with pytest.raises(ExportError, match=r"epsilon is 1e-05, the model's is 0\.0001"):
        check_norm_epsilons(package, 1e-4)
