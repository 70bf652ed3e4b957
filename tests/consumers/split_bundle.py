"""A copy of the tiny bundle as a large one would be: its graphs' weights in several files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.bundle.root_files import external_data_chunks
from fastvlm_compile.export.onnx.files import save_graph
from fastvlm_compile.progress import silent

CHUNK_BYTES = 1_000_000
STEMS = ("vision_encoder", "decoder_model_merged")


def split_bundle(bundle: Path, folder: Path) -> Path:
    """The float32 graphs in chunks of `CHUNK_BYTES`, the embedding in a file of the decoder's.

    The latter is what a tied embedding is: a graph that reads another graph's weights.
    """
    copy = Path(shutil.copytree(bundle, folder / "split"))
    onnx_folder = copy / "onnx"
    for stem in STEMS:
        model = ir.load(onnx_folder / f"{stem}.onnx")
        save_graph(model, onnx_folder, stem, silent, inline_limit_bytes=0, chunk_bytes=CHUNK_BYTES)
    _share(onnx_folder / "embed_tokens.onnx", onnx_folder / "decoder_model_merged.onnx_data")
    there = sorted(f"onnx/{path.name}" for path in onnx_folder.iterdir())
    config = json.loads((copy / "config.json").read_text())
    config["transformers.js_config"] = {"use_external_data_format": external_data_chunks(there)}
    (copy / "config.json").write_text(json.dumps(config))
    manifest = read_manifest(copy)
    data = [path for path in there if ".onnx_data" in path]
    variants = tuple(
        replace(each, files=(*each.files, *data))
        if (each.target, each.variant) == ("onnx", "fp32")
        else each
        for each in manifest.variants
    )
    (copy / "manifest.json").write_bytes(replace(manifest, variants=variants).to_bytes())
    return copy


def _share(graph: Path, data: Path) -> None:
    model = onnx.load(str(graph))
    (tensor,) = (each for each in model.graph.initializer if len(each.raw_data) > 1024)
    content = data.read_bytes()
    offset = len(content) + -len(content) % 4096
    data.write_bytes(content.ljust(offset, b"\0") + tensor.raw_data)
    onnx.external_data_helper.set_external_data(
        tensor, location=data.name, offset=offset, length=len(tensor.raw_data)
    )
    tensor.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString())
