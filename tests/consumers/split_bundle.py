"""A copy of a bundle as a larger one would be: its float32 graphs' weights in several files."""

import json
import os
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
"""Cuts the tiny graphs into a handful of files."""
STEMS = ("vision_encoder", "decoder_model_merged")


def split_bundle(
    bundle: Path, folder: Path, *, chunk_bytes: int = CHUNK_BYTES, share: bool = True
) -> Path:
    """The float32 graphs in chunks of `chunk_bytes`.

    Args:
        bundle: it is only read; what the copy leaves as it is may be the same files.
        folder: for the copy, `split`.
        chunk_bytes: at most, of a file; a larger tensor has a file of its own.
        share: put the embedding into a file of the decoder's. That is what a tied embedding is: a
            graph that reads another graph's weights.
    """
    copy = Path(shutil.copytree(bundle, folder / "split", copy_function=_link))
    onnx_folder = copy / "onnx"
    for stem in STEMS:
        model = ir.load(bundle / "onnx" / f"{stem}.onnx")
        for path in onnx_folder.glob(f"{stem}.onnx*"):
            path.unlink()
        save_graph(model, onnx_folder, stem, silent, inline_limit_bytes=0, chunk_bytes=chunk_bytes)
    if share:
        _share(onnx_folder / "embed_tokens.onnx", onnx_folder / "decoder_model_merged.onnx_data")
    there = sorted(f"onnx/{path.name}" for path in onnx_folder.iterdir())
    config = json.loads((copy / "config.json").read_text())
    config["transformers.js_config"] = {"use_external_data_format": external_data_chunks(there)}
    _replace(copy / "config.json", json.dumps(config).encode())
    manifest = read_manifest(copy)
    data = [path for path in there if ".onnx_data" in path]
    variants = tuple(
        replace(each, files=(*each.files, *data))
        if (each.target, each.variant) == ("onnx", "fp32")
        else each
        for each in manifest.variants
    )
    _replace(copy / "manifest.json", replace(manifest, variants=variants).to_bytes())
    return copy


def _link(source: str, target: str) -> None:
    """Another name of a large file; a small one is soon copied."""
    if Path(source).stat().st_size < 2**20:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # on another disk


def _replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


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
    _replace(graph, model.SerializeToString())
