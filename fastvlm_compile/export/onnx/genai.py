"""The two graphs that onnxruntime-genai wants beside the others, over the same bytes of weights.

onnxruntime-genai 0.18 hands a model's image features on as rows [N, H], N of all images together
and 0 for none, and lets a graph of the bundle put them among the embeddings of the text. So:

- `vision<suffix>.onnx`: `vision_encoder<suffix>.onnx` with its output reshaped to rows;
- `embedding<suffix>.onnx`: `embed_tokens<suffix>.onnx`, and the rows scattered to the places of the
  image token in their order. Another number of rows than of places is an error of onnxruntime.

Neither holds a weight of its own. What the first graph keeps in a data file is read there; what it
keeps within itself is read there too: external data is a file, an offset and a length, and any file
beside the graph will do. So nothing is stored twice, and the graphs of the other consumers stay as
they were measured.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.check import check_graph
from fastvlm_compile.export.onnx.contract import BATCH, LENGTH, GraphContract, Port
from fastvlm_compile.export.onnx.embedding import EMBEDDING
from fastvlm_compile.export.onnx.files import SMALL_TENSOR_BYTES
from fastvlm_compile.export.onnx.genai_check import check_embedding, check_vision
from fastvlm_compile.export.onnx.vision import VISION

GENAI_EMBEDDING = "embedding"
GENAI_VISION = "vision"

ROWS = "num_image_tokens"
"""Symbol of the rows of all images together."""

_PLAIN, _FEATURES = "/genai/plain", "image_features"


@dataclass(frozen=True, kw_only=True)
class GenaiConfig:
    """What decides both graphs.

    Attributes:
        hidden_size: H of the language model.
        image_size: side of an image, pixels.
        image_token_id: whose places the rows take.
    """

    hidden_size: int
    image_size: int
    image_token_id: int


def export_genai_embedding(config: GenaiConfig, source: Path, out: Path) -> Path:
    """Write `embedding<suffix>.onnx` for `source`, an `embed_tokens<suffix>.onnx`; prove it.

    Returns:
        The graph in `out`. To run it, what `source` is made of must lie beside it.

    Raises:
        ExportError: the graph is invalid, or its output is not, bit for bit, that of `source` with
            the rows in their places.
    """
    model = onnx.load(str(source), load_external_data=False)
    _refer_to(model, source)
    graph = model.graph
    (ids,), (embeds,) = graph.input, graph.output
    _rename_output(graph, embeds.name)
    rows = (ROWS, config.hidden_size)
    graph.input.append(onnx.helper.make_tensor_value_info(_FEATURES, onnx.TensorProto.FLOAT, rows))
    token = np.array(config.image_token_id, dtype=np.int64)
    graph.initializer.append(onnx.numpy_helper.from_array(token, "image_token_id"))
    for op_type, inputs, output in (
        ("Equal", [ids.name, "image_token_id"], "/genai/is_image"),
        ("NonZero", ["/genai/is_image"], "/genai/places_transposed"),
        ("Transpose", ["/genai/places_transposed"], "/genai/places"),
        ("ScatterND", [_PLAIN, "/genai/places", _FEATURES], embeds.name),
    ):
        graph.node.append(onnx.helper.make_node(op_type, inputs, [output], f"/genai/{op_type}"))
    target = out / source.name.replace(EMBEDDING, GENAI_EMBEDDING, 1)
    features = Port(name=_FEATURES, dtype="float32", shape=rows)
    placed = (BATCH, LENGTH, config.hidden_size)
    contract = GraphContract(
        inputs=(Port(name="input_ids", dtype="int64", shape=(BATCH, LENGTH)), features),
        outputs=(Port(name="inputs_embeds", dtype="float32", shape=placed),),
    )
    with tempfile.TemporaryDirectory(dir=out) as folder:
        written, plain = _beside_source(model, target.name, source, Path(folder))
        check_graph(written, contract)
        check_embedding(written, plain, image_token_id=config.image_token_id)
        written.replace(target)
    return target


def export_genai_vision(config: GenaiConfig, source: Path, out: Path) -> Path:
    """Write `vision<suffix>.onnx` for `source`, a `vision_encoder<suffix>.onnx`; prove it.

    Returns:
        The graph in `out`. To run it, what `source` is made of must lie beside it.

    Raises:
        ExportError: the graph is invalid, or its output is not, bit for bit, that of `source`.
    """
    model = onnx.load(str(source), load_external_data=False)
    _refer_to(model, source)
    graph = model.graph
    (features,) = graph.output
    rows = (ROWS, config.hidden_size)
    _rename_output(graph, features.name)
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([-1, config.hidden_size], np.int64), "rows_shape")
    )
    graph.node.append(
        onnx.helper.make_node("Reshape", [_PLAIN, "rows_shape"], [_FEATURES], "/genai/Reshape")
    )
    features.CopyFrom(onnx.helper.make_tensor_value_info(_FEATURES, onnx.TensorProto.FLOAT, rows))
    target = out / source.name.replace(VISION, GENAI_VISION, 1)
    side = config.image_size
    contract = GraphContract(
        inputs=(Port(name="pixel_values", dtype="float32", shape=(BATCH, 3, side, side)),),
        outputs=(Port(name=_FEATURES, dtype="float32", shape=rows),),
    )
    with tempfile.TemporaryDirectory(dir=out) as folder:
        written, plain = _beside_source(model, target.name, source, Path(folder))
        check_graph(written, contract)
        check_vision(written, plain, image_size=side)
        written.replace(target)
    return target


def _rename_output(graph: onnx.GraphProto, name: str) -> None:
    """Give what a graph returned a name inside it."""
    for node in graph.node:
        node.output[:] = [_PLAIN if output == name else output for output in node.output]
        node.input[:] = [_PLAIN if each == name else each for each in node.input]


def _refer_to(model: onnx.ModelProto, source: Path) -> None:
    """Turn the weights within `source` into references to the bytes where they lie in it."""
    content = source.read_bytes()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < SMALL_TENSOR_BYTES:
            continue
        offset = content.find(tensor.raw_data)
        if offset < 0:
            raise ExportError(f"{source.name} does not hold {tensor.name} in one piece")
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", source.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))


def _beside_source(
    model: onnx.ModelProto, name: str, source: Path, folder: Path
) -> tuple[Path, Path]:
    """Write a graph to `folder` with copies of all that it and `source` read; both paths there."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    # Copies: onnx refuses external data behind a link of any kind.
    for each in sorted(names | {source.name}):
        shutil.copyfile(source.with_name(each), folder / each)
    written = folder / name
    written.write_bytes(model.SerializeToString(deterministic=True))
    return written, folder / source.name
