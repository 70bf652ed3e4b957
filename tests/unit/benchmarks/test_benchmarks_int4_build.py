"""What the comparison of int4 builds rests on, at the size of the tiny model."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from reference.loading import load

ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny-checkpoint"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    return import_module("benchmarks.int4_build")


@pytest.fixture
def decode(benchmark: ModuleType) -> ModuleType:
    return import_module("benchmarks.int4_decode")


def reference_logits(tokens: np.ndarray) -> torch.Tensor:
    model = load(TINY).language
    with torch.inference_mode():
        logits, _ = model(model.embed_tokens(torch.from_numpy(tokens)))
    return logits


def test_the_builder_gets_the_language_model_that_we_quantize(
    benchmark: ModuleType, decode: ModuleType, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    benchmark.write_plain_qwen2(TINY, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = decode.sample_tokens(TINY)

    def distance() -> float:
        with torch.inference_mode():
            found = model(torch.from_numpy(tokens)).logits
        return float((found - reference_logits(tokens)).abs().max())

    assert distance() < 1e-3  # float32 rounding of logits of about 20
    model.model.layers[0].self_attn.q_proj.bias.data += 0.5
    assert not distance() < 1e-3


def test_the_streamed_reference_is_the_reference(decode: ModuleType, tmp_path: Path) -> None:
    decode.write_reference(TINY, tmp_path)
    tokens, logits = (np.load(tmp_path / name) for name in (decode.TOKENS, decode.LOGITS))
    assert logits.shape[:2] == (decode.NUM_SEQUENCES, 1 + decode.NUM_STEPS)
    expected = reference_logits(tokens).numpy()[:, decode.PROMPT_LENGTH - 1 :]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    shifted = reference_logits(tokens).numpy()[:, decode.PROMPT_LENGTH - 2 : -1]
    assert not np.allclose(logits, shifted, atol=1e-1)


def test_different_sequences_are_decoded(decode: ModuleType) -> None:
    tokens = decode.sample_tokens(TINY)
    assert tokens.shape == (decode.NUM_SEQUENCES, decode.PROMPT_LENGTH + decode.NUM_STEPS)
    assert len(np.unique(tokens, axis=0)) == decode.NUM_SEQUENCES


def lookup_and_product(head: str) -> onnx.ModelProto:
    """A table of 8 rows of 4, looked up; `head` [4, 8], a product with what was found."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [8, 4], np.ones(32))
    weight = helper.make_tensor("head", TensorProto.FLOAT, [4, 8], np.ones(32))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["x", head], ["y"]),
    ]
    graph = helper.make_graph(
        [node for node in nodes if head == "turned" or node.op_type != "Transpose"],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [table] if head == "turned" else [table, weight],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize("head", ["head", "turned"])
def test_a_table_counts_only_if_the_decoder_computes_with_it(
    benchmark: ModuleType, head: str, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    onnx.save(lookup_and_product(head), path)
    assert benchmark.decoder_bytes(path) == 32 * 4


def test_a_build_takes_the_time_of_all_its_processes_and_the_memory_of_the_largest(
    benchmark: ModuleType,
) -> None:
    watched = import_module("benchmarks.watch").Watched

    def step(name: str, amount: int) -> object:
        cost = watched(
            wall_s=amount, cpu_s=2 * amount, peak_resident_bytes=amount, peak_anonymous_bytes=amount
        )
        return benchmark.Step(name=name, cost=cost, parts={"tensors": 0.5})

    build = benchmark.Build(
        name="ours",
        steps=(step("quantize", 3), step("export", 2)),
        file_bytes=10**6,
        decoder_bytes=625_000,
        decoder=Path("decoder.onnx"),
        embed=None,
    )
    assert (build.wall_s, build.cpu_s) == (5, 10)
    assert (build.peak_anonymous_bytes, build.peak_resident_bytes) == (3, 3)

    report = import_module("benchmarks.int4_build_report")
    page = report.Report(
        checkpoint="made up",
        builds=(build,),
        decoded=(),
        num_weights=10**6,
        scenes=1,
        photographs=0,
        threads=2,
        machine={"cores": "2"},
        their_versions={},
        load_before=(0.0, 0.0, 0.0),
        load_after=(1.0, 1.0, 1.0),
    )
    assert "| ours | 1.0 | 0.6 | 5.000 |" in report.markdown(page)
    stored = json.loads(report.as_json(page))["builds"][0]
    assert "decoder" not in stored
    assert stored["decoder_bytes"] == 625_000


def test_time_counts_for_what_was_told_before_it_passed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = import_module("benchmarks.int4_ours")
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(ours.time, "perf_counter", lambda: next(clock))
    watch = ours.Stopwatch()
    for what in ("calibrate layer 0", "model.layers.0.mlp.up_proj.weight", "wrote x", "end"):
        watch(0, 1, what)
    assert watch.seconds == {"inputs of layers": 1.0, "tensors": 2.0, "checks": 4.0}
