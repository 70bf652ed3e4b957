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

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime's setting: where the external data of a graph given as bytes are."""

_NO_PACKING = "session.disable_prepacking"
_WIDENING = "ConstantFolding"
"""onnxruntime's optimizer that turns float16 weights with a cast behind them into float32 ones."""

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
        exact: run a copy whose `MatMulNBits` compute in float32, whatever `accuracy_level` the file
            has: what differs from the weights' own product is then rounding alone. Needs `onnx`.
        lean: keep no second form of weights, neither packed for a kernel nor widened from float16:
            mapped weights then take no memory, but for the one that is being multiplied, and a
            prompt takes a sixth longer. Of no use where matrices are quantized: there is no fast
            kernel for them but on their packed form.
        brief: give back to the system what a run took, which onnxruntime otherwise keeps for the
            next one, even when the graph is gone; for a graph that is soon let go of.

    Raises:
        GraphError: the file is missing, unreadable, or its external data is.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        exact: bool = False,
        lean: bool = False,
        brief: bool = False,
    ) -> None:
        self.path = path
        self._session = _open(path, threads, exact=exact, lean=lean, brief=brief)
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


def executor_name(*, exact: bool = False) -> str:
    """`onnxruntime 1.31.1 (CPUExecutionProvider)`, with `, float32` where it was told so."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__} ({PROVIDER}{', float32' if exact else ''})"


def _open(
    path: Path, threads: int, *, exact: bool, lean: bool, brief: bool
) -> "onnxruntime.InferenceSession":
    import onnxruntime

    hint = "build the bundle again, or `fastvlm-compile verify` it to see what is damaged"
    if not path.is_file():
        raise GraphError(f"{path}: there is no such graph", hint=hint)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings are about fusions it tried
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = not brief
    graph: str | bytes = str(path)
    if exact:
        graph = _in_float32(path)
        options.add_session_config_entry(_DATA_FOLDER, str(path.parent))
    if lean:
        _keep_one_form(options)
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=[PROVIDER],
            disabled_optimizers=[_WIDENING] if lean else None,
        )
    except _runtime_errors() as error:
        first_line = str(error).splitlines()[0]
        raise GraphError(f"{path}: onnxruntime cannot open it: {first_line}", hint=hint) from None


def _keep_one_form(options: "onnxruntime.SessionOptions") -> None:
    """Have weights stay as they are in the file, and casts of them run when they are needed.

    Beyond the basic optimizations onnxruntime folds the casts whatever is disabled; in its default
    order it runs those of all weights first; and with a plan of memory it takes what they need once
    more.
    """
    import onnxruntime

    options.add_session_config_entry(_NO_PACKING, "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False


def _in_float32(path: Path) -> bytes:
    """The graph with every `accuracy_level` 0, that is unset, without its external data.

    Raises:
        GraphError: the file is no ONNX graph.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        raise GraphError(f"{path}: it is no ONNX graph") from None
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = 0
    serialized: bytes = model.SerializeToString()
    return serialized


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its exceptions have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile")
    more = ("NotImplemented", "RuntimeException", "NoModel", "EPFail")
    return tuple(getattr(state, name) for name in (*names, *more))


def _port(node: "onnxruntime.NodeArg") -> Port:
    dims = tuple(dim if isinstance(dim, int) else str(dim) for dim in node.shape)
    return Port(name=node.name, dtype=_DTYPES.get(node.type, node.type), dims=dims)
