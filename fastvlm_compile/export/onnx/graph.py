"""A small way of writing an ONNX graph down, node by node, with names that never vary."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from fastvlm_compile.export.errors import UnsupportedExportError

PRODUCER = "fastvlm-compile"

MAX_OPSET = 21
"""The newest opset that transformers.js' runtime loads."""

MIN_OPSET = 20
"""GELU is one op from here on; before, it is five, which ONNX Runtime does not fuse again."""

IR_VERSION = 10
"""The ONNX file version of opset 21; older runtimes refuse newer files."""

Dim = int | str


def check_opset(opset: int) -> None:
    """Refuse an opset before any work is done.

    Raises:
        UnsupportedExportError: it is older or newer than what is exported.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedExportError(
            f"ONNX opset {opset} is not supported",
            hint=f"give an opset from {MIN_OPSET} to {MAX_OPSET}",
        )


class GraphBuilder:
    """Collects nodes, inputs, outputs and initializers of one graph.

    Names are `<scope>/<op type>` with a counter where one repeats, so the same calls give the same
    bytes.
    """

    def __init__(self, name: str, *, opset: int) -> None:
        self.name = name
        self.opset = opset
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._domains = {"": opset}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of what is emitted inside."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
        """Declare an input of the graph."""
        value = ir.val(name, dtype, shape)
        self._inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> None:
        """Make a value an output of the graph under a name of its own."""
        value.name = name
        value.type = ir.TensorType(dtype)
        value.shape = ir.Shape(shape)
        self._outputs.append(value)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        **attributes: int | float | str | Sequence[int],
    ) -> ir.Value:
        """Emit a node of one output; return that output."""
        (value,) = self.multi_op(op_type, *inputs, num_outputs=1, domain=domain, **attributes)
        return value

    def multi_op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        num_outputs: int,
        domain: str = "",
        **attributes: int | float | str | Sequence[int],
    ) -> tuple[ir.Value, ...]:
        """Emit a node of several outputs; return them."""
        name = self._unique(op_type)
        outputs = [
            ir.val(f"{name}_out" if num_outputs == 1 else f"{name}_out_{index}")
            for index in range(num_outputs)
        ]
        if domain:
            self._domains.setdefault(domain, 1)
        self._nodes.append(
            ir.node(op_type, inputs, attributes, domain=domain, outputs=outputs, name=name)
        )
        return tuple(outputs)

    def initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A weight under its tensor's name; the same name again is the same value."""
        assert tensor.name, "a weight needs a name"
        if tensor.name not in self._initializers:
            self._initializers[tensor.name] = ir.val(
                tensor.name, tensor.dtype, tensor.shape.numpy(), const_value=tensor
            )
        return self._initializers[tensor.name]

    def ints(self, *values: int) -> ir.Value:
        """An int64 vector; equal ones are stored once."""
        name = "int64_" + "_".join(str(value).replace("-", "minus") for value in values)
        return self.initializer(ir.tensor(np.array(values, dtype=np.int64), name=name))

    def int_scalar(self, value: int) -> ir.Value:
        """An int64 of rank 0."""
        name = f"int64_scalar_{str(value).replace('-', 'minus')}"
        return self.initializer(ir.tensor(np.array(value, dtype=np.int64), name=name))

    def float_scalar(self, value: float, name: str) -> ir.Value:
        """A float32 of rank 0 under a name that says what it is."""
        return self.initializer(ir.tensor(np.array(value, dtype=np.float32), name=name))

    def model(self) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports=dict(sorted(self._domains.items())),
            name=self.name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name=PRODUCER)

    def _unique(self, op_type: str) -> str:
        stem = "/" + "/".join([*self._scopes, op_type])
        self._used[stem] += 1
        count = self._used[stem]
        return stem if count == 1 else f"{stem}_{count}"
