"""Writing a graph to disk: weights streamed into external data, files appearing by rename."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from fastvlm_compile.export.onnx.shared_data import refer_to_shared
from fastvlm_compile.export.onnx.weights import pieces
from fastvlm_compile.progress import Progress

INLINE_LIMIT_BYTES = 64 * 2**20
"""Weights beyond this go into a file of their own.

Below it one file is simpler for every consumer; beyond it parsing copies what could be memory
mapped, and protobuf itself ends at 2 GiB.
"""

CHUNK_BYTES = 2_000_000_000
"""A data file ends before it would be larger, unless one tensor alone is.

A browser holds each file in one buffer, and those end at 2 GiB in some.
"""

SMALL_TENSOR_BYTES = 1024
"""Tensors below this stay in the graph, where shape inference can see the constants it needs."""

ALIGNMENT_BYTES = 4096
"""A page, so that a mapped tensor can be handed to a kernel as it is."""


@dataclass(frozen=True, kw_only=True)
class SavedGraph:
    """The files of one graph."""

    graph: Path
    data: tuple[Path, ...]
    """The files of external data; none where the weights are in the graph."""
    shared: tuple[Path, ...] = ()
    """Another graph's data files, which this one reads too; they must stay beside this graph."""

    def digest(self) -> str:
        """SHA-256 over the bytes of the graph's own files."""
        total = hashlib.sha256()
        for path in (self.graph, *self.data):
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


def save_graph(
    model: ir.Model,
    directory: Path,
    stem: str,
    progress: Progress,
    *,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
    share_with: SavedGraph | None = None,
) -> SavedGraph:
    """Write `<stem>.onnx`, and `<stem>.onnx_data` when the weights exceed the limit.

    More than `chunk_bytes` of weights go on in `<stem>.onnx_data_1`, and so on, as transformers.js
    counts them. The data files are complete before the graph that names them appears. The model's
    large initializers are replaced by references to them, or to the data files of `share_with`, a
    graph in the same directory, where those hold a tensor of the same name.

    Raises:
        ExportError: `share_with` has no data file here, no tensor of the same name, or other bytes
            under the name.
    """
    values = [value for value in model.graph.initializers.values() if value.const_value is not None]
    if share_with is not None:
        values = refer_to_shared(values, share_with.graph, share_with.data, directory)
    data: tuple[Path, ...] = ()
    if sum(_tensor(value).nbytes for value in values) > inline_limit_bytes:
        large = [value for value in values if _tensor(value).nbytes >= SMALL_TENSOR_BYTES]
        data = _write_external(large, directory / f"{stem}.onnx_data", chunk_bytes, progress)
    else:
        progress(0, 1, f"writing {stem}.onnx")
        # Read here, for `to_proto` would hide what went wrong behind an error of its own.
        for value in values:
            value.const_value = ir.Tensor(_tensor(value).numpy(), name=_tensor(value).name)
    proto = ir.to_proto(model)
    graph_path = directory / f"{stem}.onnx"
    with _appearing(graph_path) as file:
        file.write(proto.SerializeToString(deterministic=True))
    if not data:
        progress(1, 1, f"wrote {stem}.onnx")
    shared = () if share_with is None else share_with.data
    return SavedGraph(graph=graph_path, data=data, shared=shared)


def _write_external(
    values: list[ir.Value], first: Path, chunk_bytes: int, progress: Progress
) -> tuple[Path, ...]:
    """Stream the tensors into files of at most `chunk_bytes`, and refer to them there."""
    paths: list[Path] = []
    done = 0
    for chunk in _chunks(values, chunk_bytes):
        path = first.with_name(f"{first.name}_{len(paths)}") if paths else first
        with _appearing(path) as file:
            for value in chunk:
                progress(done, len(values), f"writing {_tensor(value).name}")
                value.const_value = _written(_tensor(value), file, path.name)
                done += 1
        paths.append(path)
    progress(len(values), len(values), f"wrote {', '.join(path.name for path in paths)}")
    return tuple(paths)


def _chunks(values: list[ir.Value], chunk_bytes: int) -> Iterator[list[ir.Value]]:
    """The tensors in order, as many together as fit into a file with their padding."""
    chunk: list[ir.Value] = []
    end = 0
    for value in values:
        start = end + -end % ALIGNMENT_BYTES
        if chunk and start + _tensor(value).nbytes > chunk_bytes:
            yield chunk
            chunk, start = [], 0
        chunk.append(value)
        end = start + _tensor(value).nbytes
    if chunk:
        yield chunk


def _written(tensor: ir.TensorProtocol, file: BinaryIO, name: str) -> ir.ExternalTensor:
    """Stream one tensor to the next page boundary of the file called `name`."""
    offset = file.tell()
    padding = -offset % ALIGNMENT_BYTES
    file.write(bytes(padding))
    offset += padding
    for piece in pieces(tensor):
        file.write(piece.data)
    written = file.tell() - offset
    assert written == tensor.nbytes, f"{tensor.name}: {written} of {tensor.nbytes} bytes"
    return ir.ExternalTensor(
        name,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None, f"{value.name} has no values"
    return value.const_value


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file written under a name aside and renamed when it is whole."""
    aside = path.with_name(path.name + ".partial")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
