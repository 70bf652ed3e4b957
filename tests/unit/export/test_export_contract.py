"""A graph that a consumer could not load is refused when it is written."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from export_helpers import vision_config

from fastvlm_compile.export.errors import ExportError, UnsupportedExportError
from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import (
    decoder_contract,
    embedding_contract,
    vision_contract,
)
from fastvlm_compile.export.onnx.export import export_embedding
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint

DECODER = "decoder_model_merged.onnx"


def test_the_decoder_declares_what_transformers_js_supplies(exported: Path) -> None:
    graph = onnx.load(str(exported / DECODER)).graph
    declared = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    cache = {
        f"{stem}.{layer}.{part}": ["batch_size", 2, length, 16]
        for stem, length in (
            ("past_key_values", "past_sequence_length"),
            ("present", "total_sequence_length"),
        )
        for layer in (0, 1)
        for part in ("key", "value")
    }
    assert declared == {
        "inputs_embeds": ["batch_size", "sequence_length", 64],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
        "logits": ["batch_size", "sequence_length", 336],
        **cache,
    }


def test_vision_and_embedding_declare_what_transformers_js_supplies(exported: Path) -> None:
    vision = onnx.load(str(exported / "vision_encoder.onnx")).graph
    embedding = onnx.load(str(exported / "embed_tokens.onnx")).graph

    def declared(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
        tensor = value.type.tensor_type
        return (
            value.name,
            tensor.elem_type,
            [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
        )

    assert [declared(v) for v in [*vision.input, *vision.output]] == [
        ("pixel_values", onnx.TensorProto.FLOAT, ["batch_size", 3, 128, 128]),
        ("image_features", onnx.TensorProto.FLOAT, ["batch_size", 4, 64]),
    ]
    assert [declared(v) for v in [*embedding.input, *embedding.output]] == [
        ("input_ids", onnx.TensorProto.INT64, ["batch_size", "sequence_length"]),
        ("inputs_embeds", onnx.TensorProto.FLOAT, ["batch_size", "sequence_length", 64]),
    ]


def rename_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def drop_input(model: onnx.ModelProto) -> None:
    del model.graph.output[1:]


def symbolic_heads(model: onnx.ModelProto) -> None:
    model.graph.input[3].type.tensor_type.shape.dim[1].dim_param = "heads"


def another_type(model: onnx.ModelProto) -> None:
    model.graph.input[2].type.tensor_type.elem_type = onnx.TensorProto.INT32


def another_order(model: onnx.ModelProto) -> None:
    first, second = model.graph.input[1], model.graph.input[2]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def note_a_path(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="stack_trace", value="File model.py, line 1")


def document(model: onnx.ModelProto) -> None:
    model.graph.node[0].doc_string = "from model.py"


def newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 23


def break_a_shape(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("k_proj.bias"))
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[:-1], name=tensor.name)
    )


@pytest.mark.parametrize(
    "damage",
    [
        rename_batch,
        drop_input,
        symbolic_heads,
        another_type,
        another_order,
        note_a_path,
        document,
        newer_opset,
        break_a_shape,
    ],
)
def test_a_graph_off_its_contract_is_refused(
    exported: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    damage: Callable[[onnx.ModelProto], None],
) -> None:
    contract = decoder_contract(checkpoint.config.text, last_only=False)
    check_graph(exported / DECODER, contract)
    model = onnx.load(str(exported / DECODER))
    damage(model)
    onnx.save(model, str(tmp_path / DECODER))
    with pytest.raises(ExportError, match=DECODER):
        check_graph(tmp_path / DECODER, contract)


def test_the_contracts_of_the_three_graphs_are_told_apart(
    exported: Path, checkpoint: Checkpoint
) -> None:
    config = vision_config(checkpoint)
    check_graph(
        exported / "vision_encoder.onnx", vision_contract(config.vision, config.hidden_size)
    )
    check_graph(exported / "embed_tokens.onnx", embedding_contract(config.hidden_size))
    with pytest.raises(ExportError, match="differ from the contract"):
        check_graph(exported / "embed_tokens.onnx", embedding_contract(config.hidden_size + 1))
    with pytest.raises(ExportError, match="differ from the contract"):
        check_graph(exported / DECODER, decoder_contract(checkpoint.config.text, last_only=True))


@pytest.mark.parametrize("opset", [17, 19, 22])
def test_an_opset_that_consumers_or_kernels_lack_is_refused_with_the_range(
    checkpoint: Checkpoint, tmp_path: Path, opset: int
) -> None:
    with pytest.raises(UnsupportedExportError, match=f"opset {opset}") as caught:
        export_embedding(checkpoint, tmp_path, silent, opset=opset)
    assert caught.value.hint == "give an opset from 20 to 21"
