"""The compute plan is summed up rightly, over coremltools' own structures of real packages."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import pytest
from coremltools.models import compute_device, compute_plan
from coremltools.models import utils as coremltools_utils

from fastvlm_compile.export.coreml.canonical import read_spec
from validation.runtimes.compute_plan import (
    DEVICES,
    INTENDED,
    FunctionPlan,
    plan_table,
    read_function_plans,
    summarize,
)
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_runtime import COMPUTE_UNITS
from validation.typed_json import from_plain, to_plain

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

CPU, GPU, NE = (
    object.__new__(getattr(compute_device, f"ML{name}ComputeDevice"))
    for name in ("CPU", "GPU", "NeuralEngine")
)


def operation(
    name: str, operator: str, blocks: Sequence[compute_plan.MLModelStructureProgramBlock] = ()
) -> Any:
    value = compute_plan.MLModelStructureProgramNamedValueType(
        name, compute_plan.MLModelStructureProgramValueType()
    )
    return compute_plan.MLModelStructureProgramOperation({}, operator, [value], list(blocks), None)


def block(operations: Sequence[Any]) -> Any:
    return compute_plan.MLModelStructureProgramBlock([], list(operations), [])


class StandInPlan:
    """coremltools' `MLComputePlan`, as documented, with answers by operator."""

    def __init__(self, answers: dict[str, tuple[Any, Sequence[Any], float | None]]) -> None:
        self.answers = answers
        self.model_structure: Any = None

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        if operation.operator_name not in self.answers:
            return None
        preferred, supported, _ = self.answers[operation.operator_name]
        return compute_plan.MLComputePlanDeviceUsage(preferred, list(supported))

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        cost = self.answers.get(operation.operator_name, (None, (), None))[2]
        return None if cost is None else compute_plan.MLComputePlanCost(cost)


def plan_of(operations: Sequence[Any], answers: dict[str, Any], units: str = "all") -> FunctionPlan:
    return summarize(
        StandInPlan(answers),
        block(operations),
        package="a.mlpackage",
        function="main",
        compute_units=units,
    )


def test_shares_of_operations_and_of_cost_are_counted_by_device() -> None:
    operations = [
        operation("w", "const"),
        operation("q", "ios18.constexpr_lut_to_dense"),
        operation("a", "ios18.conv"),
        operation("b", "ios18.conv"),
        operation("c", "ios18.gather"),
        operation("d", "ios18.unheard_of"),
    ]
    answers = {"ios18.conv": (NE, (CPU, NE), 0.3), "ios18.gather": (CPU, (CPU, GPU), 0.2)}
    plan = plan_of(operations, answers)
    assert plan.num_constants == 2
    assert [plan.share(device).num_ops for device in DEVICES] == [1, 0, 2, 1]
    assert plan.share("neural_engine").ops_share == 0.5
    assert plan.share("neural_engine").cost_share == pytest.approx(0.75)
    assert plan.share("cpu").cost_share == pytest.approx(0.25)
    assert plan.share("not told").cost_share == 0
    assert [(stray.name, stray.device, stray.can_run_on_intended) for stray in plan.strays] == [
        ("c", "cpu", False),
        ("d", "not told", False),
    ]


def test_an_operation_that_could_run_where_it_was_meant_to_is_told_apart() -> None:
    plan = plan_of([operation("a", "ios18.conv")], {"ios18.conv": (CPU, (CPU, NE), None)})
    assert plan.strays[0].can_run_on_intended
    assert plan.strays[0].cost is None
    assert plan.share("cpu").cost_share is None


def test_nothing_strays_from_the_cpu_when_only_the_cpu_is_allowed() -> None:
    answers = {"ios18.conv": (CPU, (CPU,), 1.0)}
    assert plan_of([operation("a", "ios18.conv")], answers, "cpu_only").strays == ()


def test_operations_of_nested_blocks_count() -> None:
    nested = block([operation("a", "ios18.add"), operation("b", "ios18.add")])
    plan = plan_of([operation("c", "cond", [nested])], {"ios18.add": (GPU, (GPU,), None)})
    assert plan.share("gpu").num_ops == 2


def test_every_compute_unit_has_an_intended_device() -> None:
    assert set(INTENDED) == set(COMPUTE_UNITS)
    assert all(hasattr(ct.ComputeUnit, units.upper()) for units in COMPUTE_UNITS)


def structure(package: Path) -> compute_plan.MLModelStructure:
    """A package's program in coremltools' structures."""
    functions = {}
    for name, function in read_spec(package).mlProgram.functions.items():
        body = function.block_specializations[function.opset].operations
        operations = [operation(op.outputs[0].name, op.type) for op in body if op.outputs]
        functions[name] = compute_plan.MLModelStructureProgramFunction([], block(operations))
    return compute_plan.MLModelStructure(
        neuralnetwork=None,
        program=compute_plan.MLModelStructureProgram(functions),
        pipeline=None,
    )


def test_both_functions_of_the_decoder_are_summed_up_through_coremltools_calls(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-ins take exactly the arguments that the real functions take."""
    assert packages.whole is not None
    package = packages.whole.language / "decoder.mlpackage"
    compiled = inspect.signature(coremltools_utils.compile_model)
    loaded = inspect.signature(compute_plan.MLComputePlan.load_from_path)

    def compile_model(*args: object, **kwargs: object) -> object:
        given = compiled.bind(*args, **kwargs).arguments
        assert given["model"] == str(package)
        assert str(given["destination_path"]).endswith(".mlmodelc")
        return given["destination_path"]

    def load_from_path(*args: object, **kwargs: object) -> StandInPlan:
        given = loaded.bind(*args, **kwargs).arguments
        assert str(given["path"]).endswith(".mlmodelc")
        assert given["compute_units"] is ct.ComputeUnit.CPU_AND_NE
        plan = StandInPlan({"ios18.linear": (NE, (CPU, NE), 0.1), "linear": (NE, (CPU, NE), 0.1)})
        plan.model_structure = structure(package)
        return plan

    monkeypatch.setattr(coremltools_utils, "compile_model", compile_model)
    monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", load_from_path)
    plans = read_function_plans(package, compute_units="cpu_and_ne")
    assert [plan.function for plan in plans] == ["decode", "prefill"]
    for plan in plans:
        assert plan.package == "decoder.mlpackage"
        assert plan.num_constants > 0
        assert plan.share("neural_engine").num_ops > 0
        assert plan.share("neural_engine").cost_share == 1
        assert from_plain(json.loads(json.dumps(to_plain(plan))), FunctionPlan) == plan


def test_the_table_has_a_line_for_every_function() -> None:
    answers = {"ios18.conv": (NE, (CPU, NE), 0.3), "ios18.gather": (CPU, (CPU, GPU), 0.1)}
    operations = [operation("a", "ios18.conv"), operation("b", "ios18.gather")]
    lines = plan_table([plan_of(operations, answers), plan_of(operations, {})]).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["package", "function"]
    assert "1 (50%, cost 75%)" in lines[1]
    assert "2 (100%, cost ?)" in lines[2]
