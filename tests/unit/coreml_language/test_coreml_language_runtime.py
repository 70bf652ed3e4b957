"""The whole model as packages answers as the reference does; off a Mac Core ML says why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreml_language_helpers import (
    all_logits,
    open_decoder,
    random_rows,
    relative_l2,
)

from fastvlm_compile.export.coreml.canonical import read_spec
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.coreml import CoreMLVisionConfig, vision
from fastvlm_compile.stages.coreml_language import (
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
    embedding,
    projector,
)
from reference.decoding import GenerationSettings
from reference.fastvlm import FastVLM
from reference.prompt import IMAGE_SENTINEL
from validation.answer import answer
from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.core_ml_paths import (
    CoreMLPaths,
    PackagesMissingError,
    packages_in_folder,
    packages_in_stages,
)
from validation.runtimes.coreml_runtime import (
    CoreMLChunk,
    CoreMLRuntime,
    CoreMLUnavailableError,
    why_unavailable,
)
from validation.runtimes.ml_program.executable import Executable, load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import MLProgramRuntime
from validation.runtimes.torch_runtime import TorchRuntime

SETTINGS = GenerationSettings(max_new_tokens=6)


@pytest.fixture(scope="module")
def paths(weights: Path, float32: Path, tmp_path_factory: pytest.TempPathFactory) -> CoreMLPaths:
    """All parts in float32, each in the directory of its stage."""
    stages = {"decoder": float32}
    for name in ("vision", "projector", "embedding"):
        stages[name] = tmp_path_factory.mktemp(name)
    inputs = {"weights": weights}
    config = CoreMLVisionConfig(image_size=128, precision="float32")
    vision(config, inputs, stages["vision"], silent)
    projecting = CoreMLProjectorConfig(image_size=128, precision="float32")
    projector(projecting, inputs, stages["projector"], silent)
    embedding(CoreMLEmbeddingConfig(precision="float32"), inputs, stages["embedding"], silent)
    return packages_in_stages(stages)


@pytest.fixture(scope="module")
def runtime(paths: CoreMLPaths) -> MLProgramRuntime:
    return MLProgramRuntime(paths)


def test_every_part_equals_the_reference(runtime: MLProgramRuntime, reference: FastVLM) -> None:
    expected = TorchRuntime(reference)
    pixels = np.random.default_rng(0).random((2, 3, 128, 128), dtype=np.float32)
    assert relative_l2(runtime.encode_image(pixels), expected.encode_image(pixels)) <= 1e-5
    ids = np.array([[1, 2, 799]])
    assert np.array_equal(runtime.embed(ids), expected.embed(ids))
    embeds = random_rows(11)[None]
    assert relative_l2(runtime.logits(embeds), expected.logits(embeds)[:, -1:]) <= 1e-5


def test_an_image_and_a_prompt_give_the_references_answer(
    runtime: MLProgramRuntime, reference: FastVLM
) -> None:
    prompt = np.array([5, 6, IMAGE_SENTINEL, 7, 8, 9])
    pixels = np.random.default_rng(1).random((1, 3, 128, 128), dtype=np.float32)
    found, expected = (
        answer(each, prompt, pixels, SETTINGS, context_length=100)
        for each in (runtime, TorchRuntime(reference))
    )
    assert found.token_ids == expected.token_ids
    assert len(set(found.token_ids)) > 1


@pytest.mark.parametrize("rounding", ["none", "fp16"])
def test_the_runtime_never_claims_to_be_core_ml(paths: CoreMLPaths, rounding: str) -> None:
    runtime = MLProgramRuntime(paths, rounding="fp16" if rounding == "fp16" else "none")
    assert runtime.executed_by_core_ml is False
    assert runtime.executor.startswith("ML Program executor (torch ")
    assert runtime.executor.endswith(f"CPU, rounding {rounding})")


def test_a_missing_part_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PackagesMissingError, match=r"fastvithd\.mlpackage: there is no such part"):
        MLProgramRuntime(packages_in_folder(tmp_path))


@pytest.mark.parametrize(
    ("system", "release", "reason"),
    [
        ("linux", "", "Core ML needs macOS, this is linux"),
        ("darwin", "14.7", "packages with states need macOS 15, this is 14.7"),
        ("darwin", "15.0", ""),
        ("darwin", "26.1", ""),
    ],
)
def test_core_ml_says_why_it_cannot_run(system: str, release: str, reason: str) -> None:
    assert why_unavailable(system=system, release=release) == reason


def test_off_a_mac_the_core_ml_runtime_is_a_users_error(
    paths: CoreMLPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(CoreMLUnavailableError, match="needs macOS") as refusal:
        CoreMLRuntime(paths)
    assert "ml_program" in refusal.value.hint


def test_unknown_compute_units_are_a_users_error(paths: CoreMLPaths) -> None:
    with pytest.raises(CoreMLUnavailableError, match="'gpu' are none of all, cpu_only"):
        CoreMLRuntime(paths, compute_units="gpu")  # type: ignore[arg-type]


class StandInState:
    """coremltools' `MLState`, as documented, over the executor's."""

    def __init__(self, state: State) -> None:
        self.state = state

    def read_state(self, name: str) -> np.ndarray:
        return self.state.read(name)

    def write_state(self, name: str, value: np.ndarray) -> None:
        self.state.write(name, value)


class StandInModel:
    """coremltools' `MLModel` of one function, as documented, over the executor."""

    def __init__(self, executable: Executable) -> None:
        self.executable = executable

    def get_spec(self) -> Any:
        return read_spec(self.executable.path)

    def make_state(self) -> StandInState:
        return StandInState(self.executable.make_state())

    def predict(self, data: dict[str, np.ndarray], state: StandInState | None) -> dict[str, Any]:
        return dict(self.executable.run(data, state=state.state if state else None))


@pytest.mark.parametrize("form", ["float16", "float32"])
def test_core_mls_calls_keep_and_copy_the_cache_as_the_executor_does(
    request: pytest.FixtureRequest, form: str
) -> None:
    """With a stand-in for coremltools: shows that the calls fit together, not what Core ML does."""
    folder = request.getfixturevalue(form)
    ours = open_decoder(folder)
    prefill = load(folder / "decoder.mlpackage", function="prefill")
    chunk = CoreMLChunk(
        {
            "prefill": StandInModel(prefill),  # type: ignore[dict-item]
            "decode": StandInModel(prefill.with_function("decode")),  # type: ignore[dict-item]
        }
    )
    theirs = ChunkedDecoder(ours.layout, [chunk])
    rows = random_rows(14)
    memory = theirs.new_memory()
    theirs.append(rows[:12], memory)
    twin = theirs.copy(memory)
    changed = theirs.append(random_rows(1, seed=9), memory)
    found = theirs.append(rows[12:13], twin)
    expected = all_logits(ours, [rows[:12], rows[12:13]])[1]
    assert np.array_equal(found, expected)
    assert not np.array_equal(changed, expected)
