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

SMALL_TENSOR_BYTES = 1024
"""Tensors below this stay in the graph, where shape inference can see the constants it needs."""

ALIGNMENT_BYTES = 4096
"""A page, so that a mapped tensor can be handed to a kernel as it is."""


@dataclass(frozen=True, kw_only=True)
class SavedGraph:
    """The files of one graph."""

    graph: Path
    data: Path | None
    shared: Path | None = None
    """Another graph's data file, which this one reads too; it must stay beside this graph."""

    def digest(self) -> str:
        """SHA-256 over the bytes of the graph's own files."""
        total = hashlib.sha256()
        for path in (self.graph, self.data):
            if path is not None:
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
    share_with: SavedGraph | None = None,
) -> SavedGraph:
    """Write `<stem>.onnx`, and `<stem>.onnx_data` when the weights exceed the limit.

    The data file is complete before the graph that names it appears. The model's large
    initializers are replaced by references to the file, or to the data file of `share_with`, a
    graph in the same directory, where that holds a tensor of the same name.

    Raises:
        ExportError: `share_with` has no data file here, no tensor of the same name, or other bytes
            under the name.
    """
    values = [value for value in model.graph.initializers.values() if value.const_value is not None]
    if share_with is not None:
        values = refer_to_shared(values, share_with.graph, share_with.data, directory)
    data_path = None
    if sum(_tensor(value).nbytes for value in values) > inline_limit_bytes:
        data_path = directory / f"{stem}.onnx_data"
        large = [value for value in values if _tensor(value).nbytes >= SMALL_TENSOR_BYTES]
        _write_external(large, data_path, progress)
    else:
        progress(0, 1, f"writing {stem}.onnx")
        # Read here, for `to_proto` would hide what went wrong behind an error of its own.
        for value in values:
            value.const_value = ir.Tensor(_tensor(value).numpy(), name=_tensor(value).name)
    proto = ir.to_proto(model)
    graph_path = directory / f"{stem}.onnx"
    with _appearing(graph_path) as file:
        file.write(proto.SerializeToString(deterministic=True))
    if data_path is None:
        progress(1, 1, f"wrote {stem}.onnx")
    shared = None if share_with is None else share_with.data
    return SavedGraph(graph=graph_path, data=data_path, shared=shared)


def _write_external(values: list[ir.Value], path: Path, progress: Progress) -> None:
    """Stream the tensors into one file, each at a page boundary, and refer to them there."""
    with _appearing(path) as file:
        for index, value in enumerate(values):
            tensor = _tensor(value)
            progress(index, len(values), f"writing {tensor.name}")
            offset = file.tell()
            padding = -offset % ALIGNMENT_BYTES
            file.write(bytes(padding))
            offset += padding
            for piece in pieces(tensor):
                file.write(piece.data)
            written = file.tell() - offset
            assert written == tensor.nbytes, f"{tensor.name}: {written} of {tensor.nbytes} bytes"
            value.const_value = ir.ExternalTensor(
                path.name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name or "",
            )
    progress(len(values), len(values), f"wrote {path.name}")


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
