"""One package for several image sizes: a function for each, and every weight stored once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_helpers import relative_l2

from fastvlm_compile.export.coreml.canonical import canonical_digest, read_spec, spec_path
from fastvlm_compile.export.coreml.check import VISION_OPS, check_package, op_counts
from fastvlm_compile.export.coreml.convert import VisionPackageConfig, export_vision_package
from fastvlm_compile.export.coreml.projector import ProjectorPackageConfig, export_projector
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint
from reference.fastvlm import FastVLM
from validation.runtimes.ml_program_runtime import executed_program

pytestmark = pytest.mark.xdist_group("export-sizes")

PACKAGE = "fastvithd.mlpackage"
SIZES = {"main": 128, "size_192": 192}


@pytest.fixture(scope="module")
def tower(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLOAT32. Do not write into it."""
    config = VisionPackageConfig(
        vision=checkpoint.config.vision, precision="float32", further_sizes=(192,)
    )
    return export_vision_package(config, checkpoint, tmp_path_factory.mktemp("sizes"), silent)


@pytest.fixture(scope="module")
def single(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for one size."""
    config = VisionPackageConfig(vision=checkpoint.config.vision, precision="float32")
    return export_vision_package(config, checkpoint, tmp_path_factory.mktemp("single"), silent)


def projector_config(checkpoint: Checkpoint, *further: int) -> ProjectorPackageConfig:
    return ProjectorPackageConfig(
        vision=checkpoint.config.vision,
        hidden_size=checkpoint.config.text.hidden_size,
        precision="float32",
        further_sizes=further,
    )


@pytest.fixture(scope="module")
def projector(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLOAT32. Do not write into it."""
    out = tmp_path_factory.mktemp("sizes")
    return export_projector(projector_config(checkpoint, 192), checkpoint, out, silent)


def weights(package: Path) -> bytes:
    return (spec_path(package).parent / "weights" / "weight.bin").read_bytes()


def test_each_size_is_a_function_of_fixed_shapes_and_main_is_the_default(tower: Path) -> None:
    description = read_spec(tower).description
    found = {
        function.name: tuple(function.input[0].type.multiArrayType.shape)
        for function in description.functions
    }
    assert found == {name: (1, 3, size, size) for name, size in SIZES.items()}
    assert description.defaultFunctionName == "main"
    assert description.metadata.userDefined["fastvlm.image_sizes"] == "128,192"
    assert "128 x 128" in description.metadata.shortDescription
    for function in description.functions:
        assert function.input[0].type.multiArrayType.WhichOneof("ShapeFlexibility") is None
        assert "RGB" in function.input[0].shortDescription


def test_main_is_the_package_without_further_sizes_and_no_weight_is_stored_twice(
    tower: Path, single: Path
) -> None:
    assert weights(tower) == weights(single)
    functions, alone = (read_spec(p).mlProgram.functions for p in (tower, single))
    assert functions["main"] == alone["main"]
    assert functions["size_192"] != alone["main"]  # negative control
    counts = [op_counts(read_spec(package)) for package in (single, tower)]
    assert {kind: 2 * count for kind, count in counts[0].items()} == dict(counts[1])
    assert counts[1].keys() <= VISION_OPS  # none that asks for a shape at run time


def test_every_size_computes_what_the_reference_computes_at_that_size(
    tower: Path, projector: Path, reference: FastVLM
) -> None:
    see, project = (executed_program(p, rounding="none") for p in (tower, projector))
    found = {}
    for size in SIZES.values():
        pixels = np.random.default_rng(size).random((1, 3, size, size), dtype=np.float32)
        with torch.inference_mode():
            features = reference.vision_tower(torch.from_numpy(pixels))
            embeds = reference.project(features).numpy()
        found[size] = see({"images": pixels})["image_features"]
        assert relative_l2(found[size], features.numpy()) <= 1e-5
        given = {"image_features": features.numpy()}
        assert relative_l2(project(given)["image_embeds"], embeds) <= 1e-5
    assert not np.allclose(found[192][:, :4], found[128])  # negative control


def test_packages_of_several_sizes_are_reproducible(
    projector: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    again, other, single = (tmp_path / name for name in "abc")
    for folder, sizes in ((again, (192,)), (other, (256,)), (single, ())):
        folder.mkdir()
        export_projector(projector_config(checkpoint, *sizes), checkpoint, folder, silent)
    name = projector.name
    assert canonical_digest(again / name) == canonical_digest(projector)
    files = [path.relative_to(projector) for path in projector.rglob("*") if path.is_file()]
    assert all((projector / f).read_bytes() == (again / name / f).read_bytes() for f in files)
    assert canonical_digest(other / name) != canonical_digest(projector)
    assert len(weights(single / name)) == len(weights(projector))


def another_default(spec: object) -> None:
    spec.description.defaultFunctionName = "size_192"  # type: ignore[attr-defined]


def a_function_less(spec: object) -> None:
    del spec.mlProgram.functions["size_192"]  # type: ignore[attr-defined]


def a_function_more(spec: object) -> None:
    functions = spec.mlProgram.functions  # type: ignore[attr-defined]
    functions["size_320"].CopyFrom(functions["size_192"])


def another_shape(spec: object) -> None:
    feature = spec.description.functions[-1].input[0]  # type: ignore[attr-defined]
    feature.type.multiArrayType.shape[3] += 64


def several_shapes(spec: object) -> None:
    array = spec.description.functions[-1].input[0].type.multiArrayType  # type: ignore[attr-defined]
    array.enumeratedShapes.shapes.add().shape.extend(array.shape)


def weights_of_its_own(spec: object) -> None:
    (block,) = spec.mlProgram.functions["size_192"].block_specializations.values()  # type: ignore[attr-defined]
    values = [op.attributes["val"] for op in block.operations if op.type == "const"]
    next(v for v in values if v.HasField("blobFileValue")).blobFileValue.offset += 64


@pytest.mark.parametrize(
    "damage",
    [
        another_default,
        a_function_less,
        a_function_more,
        another_shape,
        several_shapes,
        weights_of_its_own,
    ],
)
def test_a_package_that_is_not_of_these_sizes_is_refused(
    tower: Path, checkpoint: Checkpoint, tmp_path: Path, damage: Callable[[object], None]
) -> None:
    vision = checkpoint.config.vision
    check_package(tower, vision, "float32", further_sizes=(192,))
    package = tmp_path / PACKAGE
    shutil.copytree(tower, package)
    spec = read_spec(package)
    damage(spec)
    spec_path(package).write_bytes(spec.SerializeToString())
    with pytest.raises(ExportError, match=PACKAGE):
        check_package(package, vision, "float32", further_sizes=(192,))


def test_a_package_of_other_sizes_than_asked_for_is_refused(
    tower: Path, single: Path, checkpoint: Checkpoint
) -> None:
    check_package(single, checkpoint.config.vision, "float32")
    for package, sizes in ((tower, (192, 256)), (tower, ()), (single, (192,))):
        with pytest.raises(ExportError, match="functions are"):
            check_package(package, checkpoint.config.vision, "float32", further_sizes=sizes)
