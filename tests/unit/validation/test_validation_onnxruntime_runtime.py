"""ONNX graphs behind the runtime interface: sessions, beams, batches, and unusable files."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reference.decoding import GenerationSettings
from reference.errors import UserError
from reference.generation import generate
from validation.runtimes.checked import CheckedRuntime, ContractError
from validation.runtimes.onnx_decoder import NotADecoderError, OnnxDecoder
from validation.runtimes.onnx_graph import GraphError, OnnxGraph
from validation.runtimes.onnx_signatures import decoder_signature, embed_tokens_signature
from validation.runtimes.onnxruntime_runtime import (
    GraphPaths,
    OnnxRuntime,
    graphs_in_stages,
)
from validation.runtimes.torch_runtime import TorchRuntime
from validation.signature import Port, signature_problems


@pytest.fixture
def runtime(graphs) -> OnnxRuntime:
    return OnnxRuntime(graphs, threads=1)


@pytest.fixture
def prompt(model) -> np.ndarray:
    ids = np.array([[5, 9, 200, 31, 7]], dtype=np.int64)
    return TorchRuntime(model).embed(ids)


def identity_graph(path: Path, *, output: str = "inputs_embeds") -> Path:
    """A graph that casts input_ids [batch_size, n] to float and returns it."""
    value = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "n"])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch_size", "n"])
    node = helper.make_node("Cast", ["input_ids"], [output], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "g", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def toy_decoder(path: Path, *, past: list[object], missing_output: bool = False) -> Path:
    """One layer whose cache is its past, unchanged; logits are the embeddings."""
    kinds = ("key", "value")
    inputs = [
        helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, ["batch_size", "l", 4]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "t"]),
        helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch_size", "l"]),
        *(
            helper.make_tensor_value_info(f"past_key_values.0.{kind}", TensorProto.FLOAT, past)
            for kind in kinds
        ),
    ]
    nodes = [helper.make_node("Identity", ["inputs_embeds"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", "l", 4])]
    for kind in kinds[: 1 if missing_output else 2]:
        nodes.append(
            helper.make_node("Identity", [f"past_key_values.0.{kind}"], [f"present.0.{kind}"])
        )
        outputs.append(helper.make_tensor_value_info(f"present.0.{kind}", TensorProto.FLOAT, past))
    graph = helper.make_graph(nodes, "decoder", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_greedy_answers_equal_those_of_the_reference(runtime, model, prompt):
    settings = GenerationSettings(max_new_tokens=12)
    expected = generate(TorchRuntime(model).session(prompt), settings)
    assert generate(runtime.session(prompt), settings).token_ids == expected.token_ids


def test_beam_search_reorders_the_cache_as_the_reference_does(runtime, model, prompt):
    settings = GenerationSettings(max_new_tokens=8, num_beams=3)
    expected = generate(TorchRuntime(model).session(prompt), settings)
    assert generate(runtime.session(prompt), settings).token_ids == expected.token_ids


def test_both_runtimes_give_the_same_logits_and_features(runtime, model, prompt, goldens):
    torch_runtime = TorchRuntime(model)
    pixels = goldens.pixel_values("photo-coffee")[None]
    np.testing.assert_allclose(runtime.logits(prompt), torch_runtime.logits(prompt), atol=1e-3)
    np.testing.assert_allclose(
        runtime.encode_image(pixels), torch_runtime.encode_image(pixels), atol=1e-4
    )


def test_runtimes_name_their_executor(runtime, model):
    assert runtime.executor == OnnxRuntime.executor.fget(runtime)
    assert runtime.executor.startswith("onnxruntime 1.")
    assert "CPUExecutionProvider" in runtime.executor
    assert TorchRuntime(model).executor.startswith("torch 2.")
    assert TorchRuntime(model).executor.endswith("(CPU, float32)")
    assert not runtime.executed_by_core_ml


def test_a_lean_decoder_says_the_same_but_for_rounding(graphs, runtime):
    lean = OnnxRuntime(graphs, threads=1, lean=True)
    embeds = runtime.embed(np.arange(12, dtype=np.int64).reshape(1, 12))
    expected, found = runtime.logits(embeds), lean.logits(embeds)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("graph", ["vision_graph", "decoder"])
def test_a_closed_graph_is_opened_anew_when_it_is_needed(graphs, graph):
    runtime = OnnxRuntime(graphs, threads=1)
    runtime.close(graph)  # not open yet
    first = getattr(runtime, graph)
    assert getattr(runtime, graph) is first
    runtime.close(graph)
    assert getattr(runtime, graph) is not first


def test_the_onnx_runtime_never_imports_torch():
    code = (
        "import sys, validation.runtimes.onnxruntime_runtime, validation.answer, validation.task;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipes_and_stages_import_neither_numpy_nor_torch():
    code = (
        "import sys, validation.gates, validation.gate_table, validation.parity_file;"
        "import fastvlm_compile.stages.golden, fastvlm_compile.stages.parity;"
        "sys.exit(bool({'numpy', 'torch', 'onnxruntime'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_graph_is_told_at_once(graphs, tmp_path):
    with pytest.raises(GraphError, match=r"absent\.onnx: there is no such graph") as caught:
        OnnxRuntime(replace(graphs, embed_tokens=tmp_path / "absent.onnx"))
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09" * 50])
def test_an_unreadable_graph_is_told_with_its_path(tmp_path, content):
    path = tmp_path / "vision_encoder.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"vision_encoder\.onnx: onnxruntime cannot open it"):
        OnnxGraph(path)


def test_a_graph_without_its_external_data_is_told(tmp_path):
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), name="w")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [value], [result], initializer=[weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "g.onnx"
    onnx.save(model, path, save_as_external_data=True, location="g.onnx_data", size_threshold=0)
    OnnxGraph(path)
    (tmp_path / "g.onnx_data").unlink()
    with pytest.raises(GraphError, match="cannot open it"):
        OnnxGraph(path)


def test_wrong_inputs_are_an_error_that_names_the_graph(tmp_path):
    graph = OnnxGraph(identity_graph(tmp_path / "embed_tokens.onnx"))
    with pytest.raises(GraphError, match=r"embed_tokens\.onnx"):
        graph.run({"input_ids": np.zeros((1, 2), np.float32)})
    with pytest.raises(GraphError, match=r"embed_tokens\.onnx"):
        graph.run({"tokens": np.zeros((1, 2), np.int64)})


def test_an_output_of_another_name_is_told(graphs, tmp_path):
    other = identity_graph(tmp_path / "embed_tokens.onnx", output="embeddings")
    runtime = OnnxRuntime(replace(graphs, embed_tokens=other))
    with pytest.raises(GraphError, match="expected the output inputs_embeds, found embeddings"):
        runtime.embed(np.zeros((1, 2), np.int64))


def test_a_graph_without_a_cache_is_no_decoder(tmp_path):
    graph = OnnxGraph(identity_graph(tmp_path / "d.onnx"))
    with pytest.raises(NotADecoderError, match="not a decoder"):
        OnnxDecoder(graph)


def test_a_cache_with_a_symbol_for_its_heads_is_refused(tmp_path):
    path = toy_decoder(tmp_path / "d.onnx", past=["batch_size", "heads", "p", 2])
    with pytest.raises(NotADecoderError, match="with numbers for heads and head dim"):
        OnnxDecoder(OnnxGraph(path))


def test_a_missing_present_output_is_told(tmp_path):
    past = ["batch_size", 1, "p", 2]
    path = toy_decoder(tmp_path / "d.onnx", past=past, missing_output=True)
    decoder = OnnxDecoder(OnnxGraph(path))
    with pytest.raises(GraphError, match=r"there is no output 'present\.0\.value'"):
        decoder.append(np.zeros((1, 3, 4), np.float32), decoder.empty_cache(1))


def test_the_signature_of_every_exported_graph_is_the_contract(runtime, goldens):
    expected = decoder_signature(goldens.shape, logits="full")
    assert signature_problems(expected, runtime.decoder.graph.signature) == ()
    expected = embed_tokens_signature(goldens.shape)
    assert signature_problems(expected, runtime.embed_graph.signature) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "embeds"}, "output embeds float32[batch_size, n, 64]: not expected"),
        ({"dtype": "float16"}, "expected inputs_embeds float32[batch_size, ?, 64], found"),
        ({"dims": ("batch", "n", 64)}, "found inputs_embeds float32[batch, n, 64]"),
        ({"dims": ("batch_size", 7, 64)}, "found inputs_embeds float32[batch_size, 7, 64]"),
        ({"dims": ("batch_size", "n")}, "found inputs_embeds float32[batch_size, n]"),
        ({"dims": ("batch_size", "n", "h")}, "found inputs_embeds float32[batch_size, n, h]"),
    ],
)
def test_a_signature_that_differs_is_told_port_by_port(goldens, change, words):
    expected = embed_tokens_signature(goldens.shape)
    right = Port(name="inputs_embeds", dtype="float32", dims=("batch_size", "n", 64))
    good = replace(expected, outputs=(right,))
    good = replace(good, inputs=(replace(expected.inputs[0], dims=("batch_size", "n")),))
    assert signature_problems(expected, good) == ()
    problems = signature_problems(expected, replace(good, outputs=(replace(right, **change),)))
    assert any(words in problem for problem in problems)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.encode_image(np.zeros((2, 3, 8, 8), np.float32)), "image features: expected"),
        (lambda r: r.embed(np.zeros((1, 3), np.int64)), "embeddings: expected shape [1, 3, 64]"),
        (
            lambda r: r.logits(np.zeros((1, 3, 64), np.float32)),
            "logits: expected shape [1, 3, 336]",
        ),
    ],
)
def test_a_checked_runtime_refuses_shapes_that_do_not_fit_together(goldens, call, words):
    class Wrong:
        executor, executed_by_core_ml = "nothing", False
        encode_image = embed = logits = staticmethod(lambda _: np.zeros((1, 1, 1), np.float32))

    with pytest.raises(ContractError) as caught:
        call(CheckedRuntime(Wrong(), goldens.shape))
    assert words in caught.value.message
    assert isinstance(caught.value, UserError)


def test_graphs_of_a_variant_are_found_in_stages_the_tower_under_its_own_name(tmp_path):
    names = ("vision_encoder", "embed_tokens", "decoder_model_merged")
    stages = {name: tmp_path / name for name in names}
    assert graphs_in_stages(stages, suffix="_q4", vision_suffix="_quantized") == GraphPaths(
        vision_encoder=tmp_path / "vision_encoder/vision_encoder_quantized.onnx",
        embed_tokens=tmp_path / "embed_tokens/embed_tokens_q4.onnx",
        decoder_model_merged=tmp_path / "decoder_model_merged/decoder_model_merged_q4.onnx",
    )
    assert graphs_in_stages(stages).embed_tokens == tmp_path / "embed_tokens/embed_tokens.onnx"
