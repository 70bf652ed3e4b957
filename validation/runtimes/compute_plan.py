"""Where Core ML would run the operations of a package: shares by device, and the exceptions.

Source: `coremltools.models.compute_plan` of coremltools 9 (`MLComputePlan.load_from_path` over a
compiled package), which is Core ML's `MLComputePlan`. Only on macOS. Core ML tells a device for
each operation, and of most operations a share of the estimated cost; constants have neither.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Device = Literal["cpu", "gpu", "neural_engine", "not told"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu", "neural_engine", "not told")

INTENDED: Mapping[str, Device] = {
    "all": "neural_engine",
    "cpu_only": "cpu",
    "cpu_and_gpu": "gpu",
    "cpu_and_ne": "neural_engine",
}
"""Compute units -> the device they are chosen for."""

_CLASSES: Mapping[str, Device] = {
    "MLCPUComputeDevice": "cpu",
    "MLGPUComputeDevice": "gpu",
    "MLNeuralEngineComputeDevice": "neural_engine",
}


@dataclass(frozen=True, kw_only=True)
class DeviceShare:
    """What runs on one device.

    Attributes:
        device: which.
        num_ops: operations, constants not counted.
        ops_share: of all operations, 0 to 1.
        cost_share: of the estimated cost that is known, 0 to 1; None where none is.
    """

    device: Device
    num_ops: int
    ops_share: float
    cost_share: float | None


@dataclass(frozen=True, kw_only=True)
class StrayOp:
    """An operation that does not run on the device that was intended.

    Attributes:
        name: of its first output.
        operator: "ios18.gather", ...
        device: where it runs.
        can_run_on_intended: whether Core ML could, and chose not to.
        cost: share of the function's estimated cost; None where it is not told.
    """

    name: str
    operator: str
    device: Device
    can_run_on_intended: bool
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class FunctionPlan:
    """One function of one package on one choice of compute units."""

    package: str
    function: str
    compute_units: str
    intended: Device
    num_constants: int
    shares: tuple[DeviceShare, ...]
    strays: tuple[StrayOp, ...]

    def share(self, device: Device) -> DeviceShare:
        """Of one device."""
        return next(share for share in self.shares if share.device == device)


class Named(Protocol):
    """`MLModelStructureProgramNamedValueType`."""

    @property
    def name(self) -> str: ...


class Operation(Protocol):
    """`MLModelStructureProgramOperation`."""

    @property
    def operator_name(self) -> str: ...
    @property
    def outputs(self) -> Sequence[Named]: ...
    @property
    def blocks(self) -> Sequence["Block"]: ...


class Block(Protocol):
    """`MLModelStructureProgramBlock`."""

    @property
    def operations(self) -> Sequence[Operation]: ...


class Usage(Protocol):
    """`MLComputePlanDeviceUsage`."""

    @property
    def preferred_compute_device(self) -> object: ...
    @property
    def supported_compute_devices(self) -> Sequence[object]: ...


class Cost(Protocol):
    """`MLComputePlanCost`."""

    @property
    def weight(self) -> float: ...


class Plan(Protocol):
    """The calls of `MLComputePlan` that are used."""

    def get_compute_device_usage_for_mlprogram_operation(
        self, operation: Operation
    ) -> Usage | None: ...
    def get_estimated_cost_for_mlprogram_operation(self, operation: Operation) -> Cost | None: ...


@dataclass(frozen=True, kw_only=True)
class _Placed:
    name: str
    operator: str
    device: Device
    supported: frozenset[Device]
    cost: float | None


def read_function_plans(package: Path, *, compute_units: str) -> tuple[FunctionPlan, ...]:
    """Compiles a package and asks Core ML where its functions would run. Only on macOS.

    Args:
        package: the `.mlpackage`.
        compute_units: a key of `INTENDED`.
    """
    import tempfile

    import coremltools as ct
    from coremltools.models.compute_plan import MLComputePlan
    from coremltools.models.utils import compile_model

    units = getattr(ct.ComputeUnit, compute_units.upper())
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_model(str(package), str(Path(folder) / f"{package.stem}.mlmodelc"))
        plan = MLComputePlan.load_from_path(compiled, compute_units=units)
        program = plan.model_structure.program
        functions = {} if program is None else program.functions
        return tuple(
            summarize(
                plan,
                functions[name].block,
                package=package.name,
                function=name,
                compute_units=compute_units,
            )
            for name in sorted(functions)
        )


def summarize(
    plan: Plan, block: Block, *, package: str, function: str, compute_units: str
) -> FunctionPlan:
    """Counts a function's operations by device; those of nested blocks too.

    Args:
        plan: tells device and cost.
        block: of the function.
        package, function: their names.
        compute_units: a key of `INTENDED`.
    """
    every = list(_operations(block))
    placed = [_place(plan, operation) for operation in every if not _is_constant(operation)]
    intended = INTENDED[compute_units]
    return FunctionPlan(
        package=package,
        function=function,
        compute_units=compute_units,
        intended=intended,
        num_constants=len(every) - len(placed),
        shares=tuple(_share(device, placed) for device in DEVICES),
        strays=tuple(
            StrayOp(
                name=op.name,
                operator=op.operator,
                device=op.device,
                can_run_on_intended=intended in op.supported,
                cost=op.cost,
            )
            for op in placed
            if op.device != intended
        ),
    )


def plan_table(plans: Iterable[FunctionPlan]) -> str:
    """Shares as lines of text: one line per function, operations and cost by device."""
    header = ("package", "function", "compute units", "ops", *DEVICES, "strays")
    rows = [header]
    for plan in plans:
        cells = [_cell(plan.share(device)) for device in DEVICES]
        num_ops = sum(share.num_ops for share in plan.shares)
        front = (plan.package, plan.function, plan.compute_units, str(num_ops))
        rows.append((*front, *cells, str(len(plan.strays))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _cell(share: DeviceShare) -> str:
    cost = "?" if share.cost_share is None else f"{share.cost_share:.0%}"
    return f"{share.num_ops} ({share.ops_share:.0%}, cost {cost})"


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _is_constant(operation: Operation) -> bool:
    plain = operation.operator_name.rpartition(".")[2]
    return plain == "const" or plain.startswith("constexpr_")


def _place(plan: Plan, operation: Operation) -> _Placed:
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    outputs = operation.outputs
    return _Placed(
        name=outputs[0].name if outputs else operation.operator_name,
        operator=operation.operator_name,
        device="not told" if usage is None else _device(usage.preferred_compute_device),
        supported=frozenset(map(_device, usage.supported_compute_devices if usage else ())),
        cost=None if cost is None else cost.weight,
    )


def _device(device: object) -> Device:
    return _CLASSES.get(type(device).__name__, "not told")


def _share(device: Device, placed: Sequence[_Placed]) -> DeviceShare:
    here = [op for op in placed if op.device == device]
    total = sum(op.cost or 0.0 for op in placed)
    return DeviceShare(
        device=device,
        num_ops=len(here),
        ops_share=len(here) / len(placed) if placed else 0.0,
        cost_share=sum(op.cost or 0.0 for op in here) / total if total > 0 else None,
    )
