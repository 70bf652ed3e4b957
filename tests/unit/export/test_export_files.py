"""Graphs are written in one pass over the weights, aligned, and appear whole or not at all."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from export_helpers import decoder_config

from fastvlm_compile.export.onnx.decoder import DecoderEncoding, build_decoder
from fastvlm_compile.export.onnx.files import ALIGNMENT_BYTES, SMALL_TENSOR_BYTES, save_graph
from fastvlm_compile.export.onnx.graph import GraphBuilder
from fastvlm_compile.export.onnx.weights import StreamedTensor, transposed
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint


def adder(tensor: ir.TensorProtocol) -> ir.Model:
    """A graph of one addition."""
    graph = GraphBuilder("adder", opset=21)
    x = graph.input("x", ir.DataType.FLOAT, (1,))
    y = graph.op("Add", x, graph.initializer(tensor))
    graph.output(y, "y", ir.DataType.FLOAT, tensor.shape.numpy())
    return graph.model()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_any_float_type_arrive_as_their_exact_float32_values(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    values = torch.randn(37, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    saved = save_graph(
        adder(StreamedTensor("w", (37, 11), lambda: values)),
        tmp_path,
        "g",
        silent,
        inline_limit_bytes=0,
    )
    (y,) = ort.InferenceSession(str(saved.graph)).run(None, {"x": np.zeros(1, np.float32)})
    assert np.array_equal(y, values.to(torch.float32).numpy())


def test_a_transposed_weight_is_the_same_in_one_chunk_and_in_many(checkpoint: Checkpoint) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    tensor = transposed(checkpoint, name, "w")
    expected = checkpoint.read(name).float().numpy().T
    chunks = list(tensor.chunks(chunk_bytes=3 * 4 * expected.shape[1]))
    assert len(chunks) > 10
    assert max(chunk.shape[0] for chunk in chunks) == 3
    assert np.array_equal(np.concatenate(chunks), expected)
    assert np.array_equal(tensor.numpy(), expected)


def test_a_scalar_weight_can_be_streamed() -> None:
    assert StreamedTensor("s", (), lambda: torch.tensor(2.5)).numpy() == np.float32(2.5)


def test_a_reader_that_breaks_its_promise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"w: read shape \(2, 3\), promised \(3, 2\)"):
        StreamedTensor("w", (3, 2), lambda: torch.zeros(2, 3)).tobytes()


def test_small_graphs_are_one_file_and_large_ones_two_with_the_same_answer(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    answers = []
    for folder, limit in (("one", 10**9), ("two", 1000)):
        out = tmp_path / folder
        out.mkdir()
        model = build_decoder(decoder_config(checkpoint), DecoderEncoding.plain(checkpoint))
        saved = save_graph(model, out, "g", silent, inline_limit_bytes=limit)
        assert bool(saved.data) == (folder == "two")
        names = {"g.onnx"} if folder == "one" else {"g.onnx", "g.onnx_data"}
        assert {path.name for path in out.iterdir()} == names
        loaded = onnx.load(str(saved.graph))
        answers.append({t.name: onnx.numpy_helper.to_array(t) for t in loaded.graph.initializer})
    assert answers[0].keys() == answers[1].keys()
    assert all(np.array_equal(answers[0][name], answers[1][name]) for name in answers[0])


def test_external_tensors_start_at_pages_and_small_ones_stay_in_the_graph(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = build_decoder(decoder_config(checkpoint), DecoderEncoding.plain(checkpoint))
    saved = save_graph(model, tmp_path, "g", silent, inline_limit_bytes=0)
    (data,) = saved.data
    end = 0
    for tensor in onnx.load(str(saved.graph), load_external_data=False).graph.initializer:
        size = int(np.prod(tensor.dims)) * (4 if tensor.data_type == onnx.TensorProto.FLOAT else 8)
        assert bool(tensor.external_data) == (size >= SMALL_TENSOR_BYTES), tensor.name
        if tensor.external_data:
            entry = {item.key: item.value for item in tensor.external_data}
            assert entry["location"] == "g.onnx_data"
            assert int(entry["offset"]) % ALIGNMENT_BYTES == 0
            assert int(entry["offset"]) >= end
            end = int(entry["offset"]) + int(entry["length"])
            assert int(entry["length"]) == size
    assert data.stat().st_size == end


def test_weights_beyond_a_chunk_go_on_in_further_files_with_the_same_answer(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    answers = []
    for folder, chunk_bytes in (("one", 10**9), ("many", 100_000)):
        out = tmp_path / folder
        out.mkdir()
        model = build_decoder(decoder_config(checkpoint), DecoderEncoding.plain(checkpoint))
        saved = save_graph(model, out, "g", silent, inline_limit_bytes=0, chunk_bytes=chunk_bytes)
        assert {path.name for path in out.iterdir()} == {"g.onnx", *(p.name for p in saved.data)}
        assert all(path.stat().st_size <= chunk_bytes for path in saved.data)
        loaded = onnx.load(str(saved.graph))
        answers.append({t.name: onnx.numpy_helper.to_array(t) for t in loaded.graph.initializer})
        ort.InferenceSession(str(saved.graph))
    names = [path.name for path in saved.data]
    assert names[:3] == ["g.onnx_data", "g.onnx_data_1", "g.onnx_data_2"]
    assert answers[0].keys() == answers[1].keys()
    assert all(np.array_equal(answers[0][name], answers[1][name]) for name in answers[0])


def test_a_tensor_larger_than_a_chunk_has_a_file_of_its_own(tmp_path: Path) -> None:
    large = StreamedTensor("w", (64, 64), lambda: torch.ones(64, 64))
    saved = save_graph(adder(large), tmp_path, "g", silent, inline_limit_bytes=0, chunk_bytes=100)
    assert [path.stat().st_size for path in saved.data] == [64 * 64 * 4]


def test_one_weight_is_read_at_a_time_and_each_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    reads: list[str] = []

    class Source:
        tensors = checkpoint.tensors

        def read(self, name: str) -> torch.Tensor:
            reads.append(name)
            return checkpoint.read(name)

    model = build_decoder(decoder_config(checkpoint), DecoderEncoding.plain(Source()))
    assert reads == [], "building a graph reads no weight"
    save_graph(model, tmp_path, "g", silent, inline_limit_bytes=0)
    assert len(reads) == len(set(reads)) == 12 * checkpoint.config.text.num_hidden_layers + 2


@pytest.mark.parametrize("inline_limit_bytes", [0, 10**9])
def test_a_weight_that_cannot_be_read_leaves_no_file(
    tmp_path: Path, inline_limit_bytes: int
) -> None:
    def fail() -> torch.Tensor:
        raise OSError("disk on fire")

    model = adder(StreamedTensor("w", (1024,), fail))
    with pytest.raises(OSError, match="disk on fire"):
        save_graph(model, tmp_path, "g", silent, inline_limit_bytes=inline_limit_bytes)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []

    def tell(done: int, total: int, what: str) -> None:
        told.append((done, total, what))

    model = build_decoder(decoder_config(checkpoint), DecoderEncoding.plain(checkpoint))
    save_graph(model, tmp_path, "g", tell, inline_limit_bytes=0)
    assert [done for done, _, _ in told] == list(range(len(told)))
    assert told[-1] == (len(told) - 1, len(told) - 1, "wrote g.onnx_data")
