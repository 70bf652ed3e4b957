"""Goldens beyond the usual ones: further image sizes, and a prompt that fills the context."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from broken_decoders import BrokenDecoder
from coreml_packages import Spoiled, export_packages
from test_validation_coreml_parity import write_package

from fastvlm_compile.progress import silent
from reference.errors import UserError
from reference.fastvlm import FastVLM
from reference.preprocess import preprocess
from reference.prompt import PromptTokenizer
from reference.scenes.scene import held_out
from validation.coreml_parity import CoreMLParity, measure_coreml
from validation.golden_file import open_goldens
from validation.golden_filling import NUM_GIVEN, filling_ids
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import FILLING, run_reference
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.onnx_parity import OnnxParity, measure_onnx
from validation.runtimes.core_ml_executor import NotRunnable, Opened, Packages, open_packages
from validation.runtimes.core_ml_paths import packages_in_stages
from validation.runtimes.onnxruntime_runtime import GraphPaths, OnnxRuntime
from validation.tensor_parity import Tolerance

pytestmark = pytest.mark.xdist_group("further-goldens")

CONTEXT = 256
SIZE = 192
TOLERANCE = Tolerance(rtol=1e-2, atol=1e-3)


@pytest.fixture(scope="module")
def further(
    model: FastVLM, tokenizer: PromptTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Goldens:
    plan = GoldenPlan(
        image_size=128,
        fit="pad",
        image_position="before",
        scenes=1,
        photographs=0,
        prompts=("Describe the image.",),
        max_new_tokens=4,
        task_questions=0,
        context_to_fill=CONTEXT,
        image_sizes=(SIZE,),
    )
    out = tmp_path_factory.mktemp("further")
    run_reference(model, tokenizer, golden_inputs(plan), out, silent)
    return open_goldens(out)


@pytest.fixture(scope="module")
def packages(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    root = tmp_path_factory.mktemp("packages")
    folders = export_packages(random_checkpoint, root, "float32", 128, further=(SIZE,))
    paths = packages_in_stages(folders)
    return Packages(vision=paths.vision, whole=paths, precision="float32")


@pytest.fixture(scope="module")
def measure(further: Goldens, packages: Packages, tokenizer: PromptTokenizer):
    def run(
        spoil: Callable[[Opened], Opened] = lambda opened: opened,
    ) -> tuple[Measurement, ...]:
        opened = open_packages(packages)
        assert isinstance(opened, Opened)
        config = CoreMLParity(tolerance=TOLERANCE, executor=lambda _: spoil(opened))
        return measure_coreml(
            config, goldens=further, packages=packages, tokenizer=tokenizer, progress=silent
        ).measurements

    return run


def found(measurements: Sequence[Measurement], component: str, metric: str) -> Measurement:
    return next(m for m in measurements if (m.component, m.metric) == (component, metric))


def test_a_further_size_is_kept_as_the_reference_sees_it(further: Goldens) -> None:
    index = further.index
    assert [image.id for image in index.sized_images] == ["scene-0@192", "plain@192"]
    assert index.image_sizes == (SIZE,)
    shape = further.shape
    for image in index.sized_images:
        assert further.pixel_values(image.id).shape == (3, SIZE, SIZE)
        assert further.vision_features(image.id).shape == (9, shape.vision_channels)
        assert further.image_features(image.id).shape == (9, shape.hidden_size)
    expected = preprocess(held_out(0).image, size=SIZE, fit="pad")
    assert np.array_equal(further.pixel_values("scene-0@192"), expected)


@pytest.mark.parametrize("length", [NUM_GIVEN + 1, 40, 255, 256, 257, 1000])
def test_a_text_fills_a_context_to_the_last_position(
    tokenizer: PromptTokenizer, length: int
) -> None:
    ids = filling_ids(("Describe the image.", "What do you see?"), tokenizer, length)
    assert ids.shape == (length,)
    assert ids.min() >= 0
    assert len(np.unique(ids)) > min(8, length // 2)


def test_a_context_that_is_too_short_to_be_filled_is_told(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(UserError, match="a context of 8 positions is too short"):
        filling_ids(("Describe the image.",), tokenizer, NUM_GIVEN)


def test_the_filling_case_takes_every_position_and_is_not_generated(further: Goldens) -> None:
    case = further.index.cases[-1]
    assert case.id == FILLING
    assert case.prompt_length + len(case.token_ids) == CONTEXT
    assert further.inputs_embeds(case).shape == (CONTEXT, further.shape.hidden_size)
    assert further.logits(case).shape == (CONTEXT, further.shape.vocab_size)
    assert [each.generated for each in further.index.cases] == [True, True, False]


def test_packages_are_measured_in_every_size_and_to_the_last_position(measure) -> None:
    measured = measure()
    for component in ("vision", "projector", "decoder", "end_to_end"):
        assert found(measured, component, "structure").value == 1.0
        assert found(measured, component, "relative_l2").value <= 1e-5
    assert found(measured, "end_to_end", "greedy_agreement").value == 1.0


@pytest.mark.parametrize(
    ("part", "call"), [("vision", "vision_features"), ("projector", "project")]
)
def test_a_mistake_in_one_size_alone_is_found_and_names_the_image(measure, part, call) -> None:
    def spoil(opened: Opened) -> Opened:
        honest = getattr(opened.whole, call)

        def wrong(given: np.ndarray) -> np.ndarray:
            answer = honest(given)
            return answer * np.float32(1.01) if answer.shape[1] == 9 else answer

        whole = Spoiled(
            model=opened.whole,
            project=wrong if call == "project" else opened.whole.project,
            logits_after=opened.whole.logits_after,
        )
        vision = opened.vision
        if call == "vision_features":
            vision = type("Tower", (), {})()
            vision.executor, vision.executed_by_core_ml = "fake", False
            vision.vision_features = wrong
        return Opened(vision=vision, whole=whole)

    worst = found(measure(spoil), part, "relative_l2")
    assert worst.value == pytest.approx(0.01, rel=1e-3)
    assert "@192" in worst.worst


def test_a_package_without_the_further_size_breaks_its_contract(
    further: Goldens, tokenizer: PromptTokenizer, packages: Packages, tmp_path: Path
) -> None:
    def structure_of(package: Path) -> Measurement:
        measured = measure_coreml(
            CoreMLParity(tolerance=TOLERANCE, executor=lambda _: NotRunnable(reason="not here")),
            goldens=further,
            packages=Packages(vision=package, whole=None, precision="float32"),
            tokenizer=tokenizer,
            progress=silent,
        )
        return found(measured.measurements, "vision", "structure")

    assert structure_of(packages.vision).value == 1.0
    structure = structure_of(write_package(tmp_path / "p.mlpackage"))
    assert structure.value == 0.0
    assert "expected main, size_192, found main" in structure.detail


def test_a_decoder_that_is_wrong_far_out_is_found(measure) -> None:
    def spoil(opened: Opened) -> Opened:
        honest = opened.whole.logits_after

        def wrong(pieces: Sequence[np.ndarray]) -> np.ndarray:
            answer, ends = honest(pieces), np.cumsum([len(piece) for piece in pieces])
            answer[ends > 250] *= np.float32(1.01)
            return answer

        whole = Spoiled(model=opened.whole, project=opened.whole.project, logits_after=wrong)
        return Opened(vision=opened.vision, whole=whole)

    worst = found(measure(spoil), "decoder", "relative_l2")
    assert worst.value == pytest.approx(0.01, rel=1e-3)
    assert FILLING in worst.worst


def test_onnx_decoders_are_measured_to_the_last_position_too(
    further: Goldens, graphs: GraphPaths, tokenizer: PromptTokenizer
) -> None:
    def measured(runtime: OnnxRuntime) -> Measurement:
        rows = measure_onnx(
            OnnxParity(variant="fp32", logits="full", tolerance=TOLERANCE),
            goldens=further,
            runtime=runtime,
            tokenizer=tokenizer,
            progress=silent,
        )
        assert found(rows, "end_to_end", "greedy_agreement").value == 1.0
        return found(rows, "decoder", "relative_l2")

    assert measured(OnnxRuntime(graphs)).value <= 1e-5
    broken = OnnxRuntime(graphs)
    broken.decoder = BrokenDecoder(broken.decoder, _wrong_far_out)
    worst = measured(broken)
    assert worst.value > 1e-3
    assert FILLING in worst.worst


def _wrong_far_out(run, inputs):
    positions = inputs["position_ids"]
    return run(**{**inputs, "position_ids": positions + (positions > 200)})
