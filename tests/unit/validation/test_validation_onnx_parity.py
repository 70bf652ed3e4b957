"""Real graphs pass against the goldens, and each way of being wrong is caught by some metric."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import broken_decoders as broken
import numpy as np
import pytest

from fastvlm_compile.progress import silent
from fastvlm_compile.stages.onnx import OnnxDecoderConfig, decoder_model_merged
from fastvlm_compile.stages.parity import OnnxParityConfig, onnx
from validation.gates import Gate, all_passed, judge
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.onnx_parity import OnnxParity, measure_onnx
from validation.parity_file import read_parity
from validation.runtimes.onnxruntime_runtime import OnnxRuntime
from validation.tensor_parity import Tolerance

CONFIG = OnnxParity(variant="fp32", logits="full", tolerance=Tolerance(rtol=1e-4, atol=1e-5))
FEW = GoldenPlan(
    image_size=128,
    fit="pad",
    image_position="after",
    scenes=2,
    photographs=0,
    prompts=("Describe the image.",),
    max_new_tokens=8,
    task_questions=1,
)
LIMITS = (
    *((component, "relative_l2", {"max": 3e-5}) for component in
      ("vision_encoder", "embed_tokens", "decoder", "end_to_end")),
    ("decoder", "kl_max", {"max": 1e-6}),
    ("decoder", "top1_agreement", {"min": 1}),
    ("end_to_end", "greedy_agreement", {"min": 1}),
    ("end_to_end", "first_difference", {"max": -1}),
)  # fmt: skip
GATES = [
    Gate(
        target="onnx",
        variant="fp32",
        component=component,
        metric=metric,
        why="float32 on both sides: rounding only",
        **bound,
    )
    for component, metric, bound in LIMITS
]


@pytest.fixture
def runtime(graphs) -> OnnxRuntime:
    return OnnxRuntime(graphs, threads=1)


@pytest.fixture
def measure(goldens, tokenizer) -> Callable[[OnnxRuntime], tuple[Measurement, ...]]:
    def run(runtime: OnnxRuntime, config: OnnxParity = CONFIG) -> tuple[Measurement, ...]:
        return measure_onnx(
            config, goldens=goldens, runtime=runtime, tokenizer=tokenizer, progress=silent
        )

    return run


def failed(measurements: tuple[Measurement, ...]) -> set[tuple[str, str]]:
    rows = judge(measurements, GATES)
    return {(row.component, row.metric) for row in rows if row.status == "failed"}


def test_the_exported_graphs_pass_every_gate(measure, runtime):
    measurements = measure(runtime)
    assert failed(measurements) == set()
    assert all_passed(judge(measurements, GATES))
    assert all(each.executor.startswith("onnxruntime 1.") for each in measurements)
    assert not any(each.executed_by_core_ml for each in measurements)


def test_every_component_has_every_metric_of_its_kind(measure, runtime):
    found = {(each.component, each.metric) for each in measure(runtime)}
    tensor = {"structure", "relative_l2", "max_abs", "cosine", "psnr_db", "smallest_atol"}
    logits = tensor | {"kl_mean", "kl_max", "top1_agreement", "top5_agreement"}
    task = {"greedy_agreement", "first_difference", "task_accuracy", "task_accuracy_drop"}
    for component, metrics in (
        ("vision_encoder", tensor),
        ("embed_tokens", tensor),
        ("decoder", logits),
        ("end_to_end", logits | task),
    ):
        assert {(component, metric) for metric in metrics} <= found


def test_a_decoder_of_the_last_position_is_measured_through_its_cache(
    measure, graphs, random_checkpoint, tmp_path
):
    inputs = {"weights": random_checkpoint, "checkpoint": random_checkpoint}
    decoder_model_merged(OnnxDecoderConfig(opset=20, logits="last"), inputs, tmp_path, silent)
    last = tmp_path / "decoder_model_merged.onnx"
    runtime = OnnxRuntime(replace(graphs, decoder_model_merged=last), threads=1)
    assert failed(measure(runtime, replace(CONFIG, logits="last"))) == set()
    assert ("decoder", "structure") in failed(measure(runtime))  # promised to return all


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (broken.scaled, ("decoder", "relative_l2")),
        (broken.sign_flipped, ("decoder", "top1_agreement")),
        (broken.nan_in_one_logit, ("decoder", "structure")),
        (broken.next_position, ("decoder", "kl_max")),
        (broken.top_two_swapped, ("decoder", "top1_agreement")),
        (broken.steps_one_position_late, ("decoder", "relative_l2")),
        (broken.key_and_value_exchanged, ("decoder", "relative_l2")),
        (broken.heads_exchanged, ("decoder", "relative_l2")),
        (broken.past_reversed, ("decoder", "relative_l2")),
        (broken.mask_ignored, ("decoder", "relative_l2")),
        (broken.layout_transposed, ("decoder", "structure")),
    ],
)
def test_a_wrong_decoder_is_caught(measure, runtime, spoil, caught):
    runtime.decoder = broken.BrokenDecoder(runtime.decoder, spoil)
    assert caught in failed(measure(runtime))


@pytest.mark.parametrize(
    ("changes", "caught"),
    [
        ({"rope_theta": 10000.0}, "relative_l2"),
        ({"rms_norm_eps": 1e-3}, "relative_l2"),
        ({"num_attention_heads": 2, "num_key_value_heads": 1}, "structure"),
    ],
)
def test_a_graph_of_another_configuration_is_caught(
    measure, graphs, make_checkpoint, changes, caught
):
    other = make_checkpoint(name="other", **changes)
    inputs = {"weights": other, "checkpoint": other}
    decoder_model_merged(OnnxDecoderConfig(opset=20, logits="full"), inputs, other, silent)
    wrong = replace(graphs, decoder_model_merged=other / "decoder_model_merged.onnx")
    assert ("decoder", caught) in failed(measure(OnnxRuntime(wrong, threads=1)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda encode: lambda pixels: encode(pixels) * np.float32(1.02),
        lambda encode: lambda pixels: -encode(pixels),
        lambda encode: lambda pixels: encode(pixels[:, ::-1].copy()),  # BGR
        lambda encode: lambda pixels: encode(pixels * 255),
        lambda encode: lambda pixels: np.roll(encode(pixels), 1, axis=1),
        lambda encode: lambda pixels: encode(pixels).transpose(0, 2, 1),
        lambda encode: lambda pixels: encode(pixels).astype(np.float64),
        lambda encode: lambda pixels: np.where(encode(pixels) > 0, encode(pixels), np.nan),
        lambda encode: lambda pixels: encode(pixels[:1]).repeat(len(pixels), 0),  # batch ignored
    ],
)
def test_a_wrong_vision_encoder_is_caught(measure, runtime, spoil):
    runtime.encode_image = spoil(runtime.encode_image)
    assert failed(measure(runtime)) & {
        ("vision_encoder", "relative_l2"),
        ("vision_encoder", "structure"),
    }


def test_a_wrong_embedding_is_caught_alone_and_end_to_end(measure, runtime):
    embed = runtime.embed
    runtime.embed = lambda ids: embed((ids + 1) % 300)
    found = failed(measure(runtime))
    assert {("embed_tokens", "relative_l2"), ("end_to_end", "relative_l2")} <= found
    assert ("decoder", "relative_l2") not in found  # it was given the golden embeddings


def test_a_graph_that_does_not_run_is_a_failed_row_and_not_a_crash(measure, runtime):
    swapped = replace(runtime._paths, embed_tokens=runtime._paths.vision_encoder)
    found = failed(measure(OnnxRuntime(swapped, threads=1)))
    assert ("embed_tokens", "structure") in found
    assert ("vision_encoder", "structure") not in found


def test_a_decoder_that_is_none_fails_its_component(measure, runtime):
    swapped = replace(runtime._paths, decoder_model_merged=runtime._paths.embed_tokens)
    found = failed(measure(OnnxRuntime(swapped, threads=1)))
    assert {("decoder", "structure"), ("end_to_end", "structure")} <= found


def test_a_model_that_never_stops_differs_from_the_reference(measure, runtime, goldens):
    class Stuck:
        def start(self):
            return np.eye(1, goldens.shape.vocab_size, 5, dtype=np.float32)

        def step(self, ids):
            return self.start()

    runtime.session = lambda embeds: Stuck()
    rows = {row.metric: row for row in judge(measure(runtime), GATES)
            if row.component == "end_to_end"}  # fmt: skip
    assert rows["greedy_agreement"].status == "failed"
    assert rows["first_difference"].value == 0


def test_goldens_that_keep_few_positions_are_compared_where_they_can_be(
    runtime, model, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("validation.golden_run.MAX_LOGIT_VALUES", 336 * 4)
    run_reference(model, tokenizer, golden_inputs(FEW), tmp_path, silent)
    measurements = measure_onnx(
        CONFIG,
        goldens=open_goldens(tmp_path),
        runtime=runtime,
        tokenizer=tokenizer,
        progress=silent,
    )
    assert failed(measurements) == set()


def test_without_task_questions_their_gates_are_not_run(measure, runtime, goldens, tokenizer):
    bare = Goldens(goldens.directory, replace(goldens.index, questions=()))
    measurements = measure_onnx(
        CONFIG, goldens=bare, runtime=runtime, tokenizer=tokenizer, progress=silent
    )
    gate = replace(GATES[0], component="end_to_end", metric="task_accuracy", max=None, min=0.95)
    (row,) = [row for row in judge(measurements, [gate]) if row.metric == "task_accuracy"]
    assert (row.status, row.reason) == ("not run", "the goldens hold no task questions")


def test_the_stage_writes_measurements_and_counts_to_the_end(
    golden_directory, graphs, random_checkpoint, tmp_path
):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, checkpoint / "processor")
    out = tmp_path / "out"
    out.mkdir()
    told: list[tuple[int, int, str]] = []
    folder = Path(graphs.vision_encoder).parent
    onnx(
        OnnxParityConfig(logits="full", threads=1),
        {
            "golden": golden_directory,
            "checkpoint": checkpoint,
            "vision_encoder": folder,
            "embed_tokens": folder,
            "decoder_model_merged": folder,
        },
        out,
        lambda done, total, what: told.append((done, total, what)),
    )
    report = read_parity(out / "parity.json")
    assert failed(report.measurements) == set()
    assert report.gates == ()
    assert [done for done, _, _ in told] == list(range(len(told)))
    assert told[-1][0] == told[-1][1]
