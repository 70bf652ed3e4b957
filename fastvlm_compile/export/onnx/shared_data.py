"""Two graphs over one file of weights: a tied embedding and head need their bytes only once.

The second graph's tensors refer to the regions of the first one's data file that hold the same
bytes under the same names. Their shapes may differ: the embedding's rows [V, n] are the head's
[V, blocks, m].
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.weights import pieces


def refer_to_shared(
    values: Sequence[ir.Value], graph: Path, data: Sequence[Path], directory: Path
) -> list[ir.Value]:
    """Point the initializers that `graph` keeps in `data` at these files; return the others.

    Args:
        values: initializers of the graph that is being written.
        graph: the graph whose data files are shared.
        data: its files.
        directory: where the graph is being written.

    Raises:
        ExportError: there is no data file in the directory, it shares no name, or holds other bytes
            under one.
    """
    if not data or any(path.parent != directory for path in data):
        raise ExportError(f"{graph.name} has no data file in {directory.name} to share")
    regions = {
        tensor.name: onnx.external_data_helper.ExternalDataInfo(tensor)
        for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    shared = [value for value in values if value.name in regions]
    if not shared:
        raise ExportError(f"{_names(data)} holds no tensor that is shared")
    for value in shared:
        assert value.const_value is not None
        tensor, region = value.const_value, regions[value.name]
        file = directory / region.location
        if region.length != tensor.nbytes or not _same_bytes(tensor, file, region.offset):
            raise ExportError(f"{file.name} holds other bytes of {value.name}")
        value.const_value = ir.ExternalTensor(
            file.name,
            region.offset,
            region.length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    return [value for value in values if value.name not in regions]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _same_bytes(tensor: ir.TensorProtocol, path: Path, offset: int) -> bool:
    with path.open("rb") as file:
        file.seek(offset)
        return all(file.read(piece.nbytes) == piece.tobytes() for piece in pieces(tensor))
