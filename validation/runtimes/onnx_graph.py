"""One ONNX graph opened in onnxruntime: what it declares, and running it on numpy arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reference.errors import UserError
from validation.signature import Port, Signature

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


class GraphError(UserError):
    """A graph is missing, damaged, or not the graph that its name promises."""


class OnnxGraph:
    """A graph ready to run on the CPU.

    External data beside the file is mapped by onnxruntime, not read into memory.

    Args:
        path: the `.onnx` file.
        threads: inside one operator; 0 lets onnxruntime choose.

    Raises:
        GraphError: the file is missing, unreadable, or its external data is.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self.path = path
        self._session = _open(path, threads)
        self.signature = Signature(
            inputs=tuple(_port(node) for node in self._session.get_inputs()),
            outputs=tuple(_port(node) for node in self._session.get_outputs()),
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs it once: arrays by input name -> arrays by output name.

        Raises:
            GraphError: onnxruntime refuses the inputs or fails inside an operator.
        """
        names = [port.name for port in self.signature.outputs]
        try:
            values = self._session.run(names, dict(feeds))
        except _runtime_errors() as error:
            raise GraphError(f"{self.path.name}: onnxruntime could not run it: {error}") from None
        except ValueError as error:  # a required input is not fed
            raise GraphError(f"{self.path.name}: {error}") from None
        return dict(zip(names, values, strict=True))

    def input(self, name: str) -> Port:
        """The input of that name.

        Raises:
            GraphError: there is none.
        """
        for port in self.signature.inputs:
            if port.name == name:
                return port
        known = ", ".join(port.name for port in self.signature.inputs)
        raise GraphError(f"{self.path.name}: there is no input {name}; it has {known}")


def executor_name() -> str:
    """`onnxruntime 1.31.1 (CPUExecutionProvider)`."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__} ({PROVIDER})"


def _open(path: Path, threads: int) -> "onnxruntime.InferenceSession":
    import onnxruntime

    hint = "build the bundle again, or `fastvlm-compile verify` it to see what is damaged"
    if not path.is_file():
        raise GraphError(f"{path}: there is no such graph", hint=hint)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings are about fusions it tried
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    except _runtime_errors() as error:
        first_line = str(error).splitlines()[0]
        raise GraphError(f"{path}: onnxruntime cannot open it: {first_line}", hint=hint) from None


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its exceptions have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile")
    more = ("NotImplemented", "RuntimeException", "NoModel", "EPFail")
    return tuple(getattr(state, name) for name in (*names, *more))


def _port(node: "onnxruntime.NodeArg") -> Port:
    dims = tuple(dim if isinstance(dim, int) else str(dim) for dim in node.shape)
    return Port(name=node.name, dtype=_DTYPES.get(node.type, node.type), dims=dims)
