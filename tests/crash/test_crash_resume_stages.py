"""The long stages, killed and gone on with: nothing is made twice, and not a byte differs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from resume_build import Builds, check_resumed
from resume_stages import compress

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.presets import Rule
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.stages.coreml_compressed import CompressConfig
from fastvlm_compile.stages.coreml_language import CoreMLDecoderConfig, decoder
from fastvlm_compile.stages.golden import golden
from fastvlm_compile.stages.parity import ReferenceParityConfig, reference
from fastvlm_compile.stages.quantize import calibration, config_of, quantize
from validation.golden_plan import GoldenPlan

INT4 = Affine(bits=4, block_size=32, symmetric=True)
GOLDEN = GoldenPlan(
    image_size=128,
    fit="pad",
    image_position="before",
    scenes=1,
    photographs=0,
    prompts=("Describe the image.",),
    max_new_tokens=3,
    task_questions=2,
)


@pytest.fixture(scope="module")
def described(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    shutil.copytree(random_checkpoint, folder / "processor")
    return folder


@pytest.fixture(scope="module")
def calibrated(described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibration")
    plan = CalibrationPlan(
        image_size=128,
        fit="pad",
        image_position="before",
        scenes=2,
        photographs=0,
        prompts=("Describe the image.",),
    )
    calibration(plan, {"checkpoint": described}, out, silent)
    return out


def test_a_killed_quantization_goes_on_with_the_next_tensor(
    builds: Callable[..., Builds], random_checkpoint: Path, calibrated: Path
) -> None:
    rules = (Rule(role="language", scheme=INT4, method="gptq"),)
    build = builds("quantize", config_of(rules), weights=random_checkpoint, calibration=calibrated)
    told = check_resumed(build, 10, quantize)
    assert len(told) == len(set(told)) == 2 * 7


@pytest.fixture
def decoder_build(builds: Callable[..., Builds], random_checkpoint: Path) -> Builds:
    config = CoreMLDecoderConfig(
        context_length=60, prefill_chunk=16, max_chunk_mb=0.07, precision="float16"
    )
    return builds("decoder", config, weights=random_checkpoint)


def test_killed_decoder_packages_go_on_with_the_next_package(decoder_build: Builds) -> None:
    told = check_resumed(decoder_build, 2, decoder)
    assert len(told) == len(set(told)) == 3


def test_killed_compressed_packages_go_on_with_the_next_package(
    builds: Callable[..., Builds], decoder_build: Builds, quantized: Path, random_checkpoint: Path
) -> None:
    packages = decoder_build.folder / "packages"
    packages.mkdir()
    (stage,) = decoder_build.plan.stages
    assert isinstance(stage.config, CoreMLDecoderConfig)
    decoder(stage.config, {"weights": random_checkpoint}, packages, silent)
    build = builds(
        "compress",
        CompressConfig(part="decoder"),
        packages=packages,
        quantized=quantized,
        weights=random_checkpoint,
    )
    told = check_resumed(build, 2, compress)
    assert len(told) == len(set(told)) == 3


@pytest.fixture(scope="module")
def quantized(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized")
    rules = (Rule(role="language", scheme=INT4, method="round_to_nearest"),)
    quantize(config_of(rules), {"weights": random_checkpoint}, out, silent)
    return out


@pytest.mark.parametrize("die_after", [1, 9])
def test_killed_goldens_go_on_with_the_next_layer_and_token(
    builds: Callable[..., Builds], described: Path, random_checkpoint: Path, die_after: int
) -> None:
    build = builds("golden", GOLDEN, weights=random_checkpoint, checkpoint=described)
    told = check_resumed(build, die_after, golden)
    assert len(told) == len(set(told))
    assert any(each.endswith("/layer 1") for each in told)
    assert any(each.endswith("/pass 2") for each in told)


@pytest.mark.parametrize("die_after", [11])
def test_a_killed_quantized_reference_goes_on_with_the_next_layer(
    builds: Callable[..., Builds], to_compare: dict[str, Path], die_after: int
) -> None:
    build = builds("reference", ReferenceParityConfig(variant="int4"), **to_compare)
    told = check_resumed(build, die_after, reference)
    assert len(told) == len(set(told))
    assert any(each.endswith("/decoder behind layer 1") for each in told)


@pytest.fixture(scope="module")
def to_compare(
    described: Path,
    random_checkpoint: Path,
    quantized: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    goldens = tmp_path_factory.mktemp("goldens")
    sources = {"weights": random_checkpoint, "checkpoint": described}
    golden(GOLDEN, sources, goldens, silent)
    return {**sources, "golden": goldens, "quantized_language": quantized}
