"""The graphs for onnxruntime-genai compute what the others do, and store nothing twice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import OPSET, Graph, vision_config

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.embedding import build_embedding
from fastvlm_compile.export.onnx.export import export_embedding, export_vision
from fastvlm_compile.export.onnx.files import save_graph
from fastvlm_compile.export.onnx.genai import (
    GenaiConfig,
    export_genai_embedding,
    export_genai_vision,
)
from fastvlm_compile.export.onnx.genai_check import check_embedding, check_vision
from fastvlm_compile.export.onnx.half import build_half_embedding
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint

GRAPH_BYTES = 4096
"""Far less than the table."""


@pytest.fixture
def config(checkpoint: Checkpoint) -> GenaiConfig:
    text, vision = checkpoint.config.text, checkpoint.config.vision
    return GenaiConfig(
        hidden_size=text.hidden_size,
        image_size=vision.image_size,
        image_token_id=text.vocab_size - 3,
    )


@pytest.fixture(scope="module")
def plain_graphs(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower and embedding alone: `exported` takes much longer."""
    out = tmp_path_factory.mktemp("plain")
    export_embedding(checkpoint, out, silent, opset=OPSET)
    export_vision(vision_config(checkpoint), checkpoint, out, silent)
    return out


@pytest.fixture
def folder(plain_graphs: Path, tmp_path: Path) -> Path:
    """The plain graphs once more, to write beside."""
    return Path(shutil.copytree(plain_graphs, tmp_path / "onnx"))


def changed(path: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    """The graph with a fault in it, in the place of the whole one."""
    model = onnx.load(str(path), load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def constant(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    return next(each for each in graph.initializer if each.name == name)


def test_rows_of_images_take_the_places_of_the_image_token_in_order(
    config: GenaiConfig, folder: Path
) -> None:
    path = export_genai_embedding(config, folder / "embed_tokens.onnx", folder)
    image = config.image_token_id
    ids = np.array([[4, image, image, 7], [image, 2, 1, 0]])
    rows = np.arange(3 * config.hidden_size, dtype=np.float32).reshape(3, -1)
    found = Graph.open(path).run({"input_ids": ids, "image_features": rows})["inputs_embeds"]
    plain = Graph.open(folder / "embed_tokens.onnx").run({"input_ids": ids})["inputs_embeds"]
    assert np.array_equal(found[ids == image], rows)
    assert np.array_equal(found[ids != image], plain[ids != image])


def test_text_alone_comes_with_no_rows(config: GenaiConfig, folder: Path) -> None:
    path = export_genai_embedding(config, folder / "embed_tokens.onnx", folder)
    ids = np.array([[4, 2, 1]])
    none = np.zeros((0, config.hidden_size), dtype=np.float32)
    found = Graph.open(path).run({"input_ids": ids, "image_features": none})["inputs_embeds"]
    plain = Graph.open(folder / "embed_tokens.onnx").run({"input_ids": ids})["inputs_embeds"]
    assert np.array_equal(found, plain)


def test_the_tower_gives_the_rows_of_all_images_together(config: GenaiConfig, folder: Path) -> None:
    path = export_genai_vision(config, folder / "vision_encoder.onnx", folder)
    shape = (2, 3, config.image_size, config.image_size)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    found = Graph.open(path).run({"pixel_values": pixels})["image_features"]
    plain = Graph.open(folder / "vision_encoder.onnx").run({"pixel_values": pixels})
    assert found.ndim == 2
    assert np.array_equal(found, np.concatenate(plain["image_features"]))


@pytest.mark.parametrize("inline_limit_bytes", [0, 2**30], ids=["data-file", "one-file"])
@pytest.mark.parametrize("build", [build_embedding, build_half_embedding])
def test_the_table_is_stored_once_wherever_it_lies(
    build: Callable[..., onnx.ModelProto],
    inline_limit_bytes: int,
    checkpoint: Checkpoint,
    config: GenaiConfig,
    tmp_path: Path,
) -> None:
    saved = save_graph(
        build(checkpoint, opset=OPSET),
        tmp_path,
        "embed_tokens_x",
        silent,
        inline_limit_bytes=inline_limit_bytes,
    )
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    path = export_genai_embedding(config, saved.graph, tmp_path)
    assert path.name == "embedding_x.onnx"
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) - before < GRAPH_BYTES
    (table,) = (
        each
        for each in onnx.load(str(path), load_external_data=False).graph.initializer
        if each.data_location == onnx.TensorProto.EXTERNAL
    )
    place = {entry.key: entry.value for entry in table.external_data}
    assert place["location"] == (saved.data[0] if saved.data else saved.graph).name


def test_another_number_of_rows_than_of_places_is_refused(
    config: GenaiConfig, folder: Path
) -> None:
    path = export_genai_embedding(config, folder / "embed_tokens.onnx", folder)
    rows = np.zeros((2, config.hidden_size), dtype=np.float32)
    with pytest.raises(Exception, match="ScatterND"):
        Graph.open(path).run(
            {"input_ids": np.array([[config.image_token_id, 1]]), "image_features": rows}
        )


def test_a_graph_that_looks_for_another_token_does_not_pass(
    config: GenaiConfig, folder: Path
) -> None:
    def other_token(graph: onnx.GraphProto) -> None:
        other = np.array(config.image_token_id - 1, dtype=np.int64)
        constant(graph, "image_token_id").raw_data = other.tobytes()

    plain = folder / "embed_tokens.onnx"
    path = changed(export_genai_embedding(config, plain, folder), other_token)
    with pytest.raises(ExportError, match=r"refuses|other values"):
        check_embedding(path, plain, image_token_id=config.image_token_id)


def test_a_table_read_from_the_wrong_place_does_not_pass(config: GenaiConfig, folder: Path) -> None:
    def moved(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = str(int(entry.value) - 4)

    plain = folder / "embed_tokens.onnx"
    path = changed(export_genai_embedding(config, plain, folder), moved)
    with pytest.raises(ExportError, match="other values"):
        check_embedding(path, plain, image_token_id=config.image_token_id)
    plain = folder / "vision_encoder.onnx"
    path = changed(export_genai_vision(config, plain, folder), moved)
    with pytest.raises(ExportError, match="other values"):
        check_vision(path, plain, image_size=config.image_size)
