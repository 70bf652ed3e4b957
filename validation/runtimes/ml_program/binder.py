"""From a program to a plan: everything is checked here, before anything runs."""

from collections.abc import Mapping

import numpy as np

from validation.runtimes.ml_program.bind_constants import const, constexpr, stored
from validation.runtimes.ml_program.constants import Opaque, Stored, evaluate
from validation.runtimes.ml_program.errors import PackageError
from validation.runtimes.ml_program.in_place import mark_in_place
from validation.runtimes.ml_program.op import Table
from validation.runtimes.ml_program.plan import (
    BlockPlan,
    Branch,
    Compute,
    FunctionPlan,
    Loop,
    ReadState,
    Slot,
    Source,
    Step,
    WriteState,
    lifetimes,
)
from validation.runtimes.ml_program.problems import Problems
from validation.runtimes.ml_program.program import (
    Binding,
    Block,
    Function,
    Name,
    NamedType,
    Operation,
)
from validation.runtimes.ml_program.registry import check, definition, opset_number
from validation.runtimes.ml_program.tensors import STORAGE, from_numpy
from validation.runtimes.ml_program.types import DType, StateType, TensorType
from validation.runtimes.ml_program.view import Bound, Local, OpView, Unsupported
from validation.runtimes.ml_program.weights import Weights

# Constants up to this size are made once and kept, whatever the cache's limit.
_SMALL_BYTES = 4096

_Scope = dict[str, Bound]


def bind(function: Function, *, weights: Weights, table: Table) -> FunctionPlan:
    """The plan of a function.

    Raises:
        UnsupportedOp: naming everything in it that is not implemented.
        PackageError: the function contradicts itself or its weight files.
    """
    problems = Problems(weights.path, function.name)
    try:
        opset = opset_number(function.opset)
    except Unsupported as reason:
        problems.add("function", function.name, str(reason))
        problems.raise_any()
        raise
    binder = _Binder(weights=weights, table=table, opset=opset, problems=problems)
    return binder.function(function)


class _Binder:
    def __init__(self, *, weights: Weights, table: Table, opset: int, problems: Problems) -> None:
        self._weights = weights
        self._table = table
        self._opset = opset
        self._problems = problems

    def function(self, function: Function) -> FunctionPlan:
        """The plan of the whole function, or all that is wrong with it."""
        scope: _Scope = {}
        parameters: dict[str, TensorType] = {}
        states: dict[str, TensorType] = {}
        for parameter in function.parameters:
            scope[parameter.name] = Local(name=parameter.name, type=parameter.type)
            if isinstance(parameter.type, StateType):
                states[parameter.name] = self._storable(parameter, parameter.type.tensor)
            else:
                parameters[parameter.name] = self._storable(parameter, parameter.type)
        block = self._block(function.block, scope, tuple(parameters))
        self._problems.raise_any()
        outputs = {name: _tensor_type(scope[name]) for name in function.block.outputs}
        return FunctionPlan(
            block=mark_in_place(block),
            parameters=parameters,
            states=states,
            outputs=outputs,
        )

    def _storable(self, named: NamedType, found: object) -> TensorType:
        if isinstance(found, TensorType) and found.dtype in STORAGE:
            return found
        self._problems.add("value", named.name, f"type {found} is not implemented")
        return TensorType(dtype=DType.FP32, shape=None)

    def _block(self, block: Block, scope: _Scope, inputs: tuple[str, ...]) -> BlockPlan:
        """Bind a block; `scope` gains what it defines."""
        steps: list[Step] = []
        for operation in block.operations:
            # Whatever goes wrong, what follows may refer to the results.
            for output in operation.outputs:
                scope[output.name] = Local(name=output.name, type=output.type)
            try:
                step = self._step(operation, scope)
            except Unsupported as reason:
                names = ", ".join(output.name for output in operation.outputs)
                self._problems.add(operation.kind, names, str(reason))
                continue
            if step is not None:
                steps.append(step)
        outputs = tuple(self._result(name, scope) for name in block.outputs)
        return BlockPlan(
            inputs=inputs,
            steps=tuple(steps),
            frees=lifetimes(tuple(steps), inputs, outputs),
            outputs=outputs,
        )

    def _step(self, operation: Operation, scope: _Scope) -> Step | None:
        """The step of an operation; None if it only defines constants, which go to `scope`."""
        match operation.kind:
            case kind if kind == "const" or kind.startswith("constexpr_"):
                self._constants(operation, scope)
                return None
            case "read_state":
                return self._read_state(operation, scope)
            case "write_state":
                return self._write_state(operation, scope)
            case "cond":
                return self._cond(operation, scope)
            case "while_loop":
                return self._loop(operation, scope)
        return self._compute(operation, scope)

    def _constants(self, operation: Operation, scope: _Scope) -> None:
        if not operation.outputs:
            raise Unsupported("it defines nothing")
        if operation.kind == "const":
            scope[operation.outputs[0].name] = const(operation, self._weights)
            return
        # iOS 16 keeps the parameters among the attributes, iOS 18 among the inputs.
        attributes = {
            name: (stored(value, self._weights),) for name, value in operation.attributes.items()
        }
        given = {**self._bound(operation, scope), **attributes}
        results = constexpr(operation, given, self._opset)
        for output, result in zip(operation.outputs, results, strict=True):
            scope[output.name] = result

    def _compute(self, operation: Operation, scope: _Scope) -> Compute:
        bound = self._bound(operation, scope)
        view = OpView(
            kind=operation.kind,
            opset=self._opset,
            bound=bound,
            outputs=[output.type for output in operation.outputs],
            weights=self._weights,
        )
        found = definition(self._table, view)
        outputs = self._slots(operation)
        check(found, view)
        attributes = {param.name for param in found.params if param.attribute}
        return Compute(
            operation=operation,
            kernel=found.bind(view),
            sources=tuple(
                (name, tuple(self._source(each) for each in given))
                for name, given in bound.items()
                if name not in attributes
            ),
            outputs=outputs,
            rounds=not found.exact,
            aliases=tuple(found.aliases),
        )

    def _bound(self, operation: Operation, scope: _Scope) -> dict[str, tuple[Bound, ...]]:
        return {
            name: tuple(self._resolve(binding, scope) for binding in bindings)
            for name, bindings in operation.inputs.items()
        }

    def _resolve(self, binding: Binding, scope: _Scope) -> Bound:
        if isinstance(binding, Name):
            return _lookup(binding.name, scope)
        return stored(binding, self._weights)

    def _source(self, bound: Bound) -> Source:
        if isinstance(bound, Local):
            return bound.name
        if isinstance(bound, Opaque):
            raise PackageError(f"{self._weights.path}: a {bound.value.kind} is used as a tensor")
        if isinstance(bound, Stored) and _size_bytes(bound.type) <= _SMALL_BYTES:
            array = np.array(evaluate(bound, self._weights))
            return from_numpy(array, bound.type.dtype)
        return bound

    def _result(self, name: str, scope: _Scope) -> Source:
        try:
            return self._source(_lookup(name, scope))
        except Unsupported as reason:
            self._problems.add("result", name, str(reason))
            return name

    def _slots(self, operation: Operation) -> tuple[Slot, ...]:
        slots = []
        for output in operation.outputs:
            if not isinstance(output.type, TensorType) or output.type.dtype not in STORAGE:
                raise Unsupported(f"result '{output.name}' has type {output.type}")
            slots.append(Slot(name=output.name, type=output.type))
        return tuple(slots)

    def _one(self, operation: Operation, name: str, scope: _Scope) -> Bound:
        given = self._bound(operation, scope).get(name, ())
        if len(given) != 1:
            raise Unsupported(f"parameter '{name}' is missing")
        return given[0]

    def _state(self, operation: Operation, scope: _Scope) -> str:
        bound = self._one(operation, "input", scope)
        if not isinstance(bound, Local) or not isinstance(bound.type, StateType):
            raise Unsupported("parameter 'input' is not a state")
        return bound.name

    def _read_state(self, operation: Operation, scope: _Scope) -> ReadState:
        state, outputs = self._state(operation, scope), self._slots(operation)
        if len(outputs) != 1:
            raise Unsupported(f"it declares {len(outputs)} results")
        return ReadState(operation=operation, state=state, outputs=outputs)

    def _write_state(self, operation: Operation, scope: _Scope) -> WriteState:
        data = self._source(self._one(operation, "data", scope))
        return WriteState(operation=operation, state=self._state(operation, scope), data=data)

    def _cond(self, operation: Operation, scope: _Scope) -> Branch:
        predicate = self._source(self._one(operation, "pred", scope))
        if len(operation.blocks) != 2:
            raise Unsupported(f"it has {len(operation.blocks)} blocks")
        true, false = (self._block(block, dict(scope), ()) for block in operation.blocks)
        return Branch(
            operation=operation,
            predicate=predicate,
            blocks=(true, false),
            outputs=self._slots(operation),
        )

    def _loop(self, operation: Operation, scope: _Scope) -> Loop:
        given = self._bound(operation, scope).get("loop_vars", ())
        if len(operation.blocks) != 2:
            raise Unsupported(f"it has {len(operation.blocks)} blocks")
        plans = []
        for block in operation.blocks:
            if len(block.inputs) != len(given):
                raise Unsupported(f"a block takes {len(block.inputs)} of {len(given)} variables")
            inner: _Scope = dict(scope)
            for named in block.inputs:
                inner[named.name] = Local(name=named.name, type=named.type)
            plans.append(self._block(block, inner, tuple(named.name for named in block.inputs)))
        return Loop(
            operation=operation,
            variables=tuple(self._source(each) for each in given),
            condition=plans[0],
            body=plans[1],
            outputs=self._slots(operation),
        )


def _lookup(name: str, scope: Mapping[str, Bound]) -> Bound:
    if name not in scope:
        raise Unsupported(f"'{name}' is not defined before it is used")
    return scope[name]


def _tensor_type(bound: Bound) -> TensorType:
    if isinstance(bound, Opaque) or not isinstance(bound.type, TensorType):
        raise PackageError("a result of the function is not a tensor")
    return bound.type


def _size_bytes(declared: TensorType) -> int:
    count = int(np.prod([size or 0 for size in declared.shape or (0,)], dtype=np.int64))
    return count * max(8, declared.dtype.bits) // 8
