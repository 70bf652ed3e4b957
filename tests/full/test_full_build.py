"""`recipes/0.5b.yaml` builds at full size within its memory, and its bundle answers."""

import json
import shutil
from pathlib import Path

import pytest
from skimage import data
from tiny_build import REPOSITORY, Build, build, run_cli

pytestmark = pytest.mark.full

GIB = 2**30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The bundle of a synthetic 0.5B; every gate that could run has passed when it is there."""
    folder = tmp_path_factory.mktemp("full")
    if shutil.disk_usage(folder).free < 44 * GIB:
        pytest.fail("building 0.5B in every variant needs 44 GiB of free disk")
    return build(folder, REPOSITORY / "recipes/0.5b.yaml")


def test_no_stage_takes_more_than_4_gib_and_a_streamed_one_much_less(bundle: Build) -> None:
    result = run_cli("store", "ls", "--store", bundle.store, "--json", cwd=bundle.store)
    peaks = {entry["stage"]: entry["peak_memory_bytes"] for entry in json.loads(result.stdout)}
    assert {stage: peak for stage, peak in peaks.items() if peak > 4 * GIB} == {}
    streamed = ("weights", "onnx.embed_tokens", "onnx.decoder_model_merged", "mlx.int4")
    assert {stage: peaks[stage] for stage in streamed if peaks[stage] > GIB} == {}


def test_a_second_build_runs_nothing(bundle: Build) -> None:
    again = build(bundle.bundle.parent, REPOSITORY / "recipes/0.5b.yaml")
    assert "built in" not in again.stderr
    assert "up to date" in again.stderr


def test_the_bundle_verifies_and_both_runtimes_give_the_same_tokens(
    bundle: Build, tmp_path: Path
) -> None:
    from PIL import Image

    assert run_cli("verify", bundle.bundle, cwd=tmp_path).returncode == 0
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    answers = []
    for runtime in ("onnxruntime", "torch"):
        result = run_cli(
            *("generate", bundle.bundle, "--image", "astronaut.png", "--prompt", "What is it?"),
            *("--runtime", runtime, "--max-new-tokens", 6, "--json"),
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        answers.append(json.loads(result.stdout)["token_ids"])
    assert answers[0] == answers[1]
