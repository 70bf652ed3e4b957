"""A failed gate stops the build with a table; what was not run is never taken for passed."""

import math
from pathlib import Path

import pytest

from fastvlm_compile.errors import GateError
from fastvlm_compile.judging import Judgement, judge_gates, refuse_failures
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import Artifact
from validation.gates import Gate
from validation.layer_curves import LayerCurve, LayerError, LayerReport, read_layers, write_layers
from validation.measurement import Measurement
from validation.parity_file import ParityReport, read_parity, write_parity

GATE = Gate(
    target="onnx",
    variant="fp32",
    component="decoder",
    metric="relative_l2",
    max=1e-4,
    why="only rounding may differ",
)


def _measured(value: float | None, *, reason: str = "") -> Measurement:
    return Measurement(
        target="onnx",
        variant="fp32",
        component="decoder",
        metric="relative_l2",
        value=value,
        executor="toy 1.0",
        not_run_reason=reason,
    )


def _judge(tmp_path: Path, *measurements: Measurement) -> Judgement:
    stage = tmp_path / "stage"
    stage.mkdir()
    write_parity(stage / "parity.json", ParityReport(measurements=measurements))
    store = Store(root=tmp_path / "store")
    store.open()
    artifacts = {"parity.onnx.fp32": Artifact(folder=stage, digest="")}
    return judge_gates(
        (GATE,),
        ("parity.onnx.fp32",),
        artifacts,
        recipe="toy",
        quantized=(),
        sizes=(),
        store=store,
        random_weights=False,
    )


def test_a_gate_that_holds_lets_the_build_go_on(tmp_path: Path) -> None:
    judgement = _judge(tmp_path, _measured(1e-6))
    refuse_failures(judgement)
    assert [row.status for row in judgement.rows] == ["passed"]
    assert judgement.not_run() == {}


@pytest.mark.parametrize("value", [2e-4, math.nan, math.inf])
def test_a_gate_that_does_not_hold_ends_the_build_with_exit_code_1(
    tmp_path: Path, value: float
) -> None:
    with pytest.raises(GateError) as caught:
        refuse_failures(_judge(tmp_path, _measured(value)))
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith("1 of 1 gates failed; nothing was published\n")
    assert "only rounding may differ" in caught.value.message
    assert caught.value.hint == f"the whole report is {tmp_path}/store/reports/toy/parity.md"


def test_the_table_of_a_failure_names_value_limit_and_how_much_over(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        refuse_failures(_judge(tmp_path, _measured(2e-4)))
    row = next(line for line in caught.value.message.splitlines() if line.startswith("FAILED"))
    assert row.split()[1:] == [
        "onnx.fp32.decoder",
        "relative_l2",
        "0.0002",
        "<=",
        "0.0001",
        "-0.0001",
        "-",
        "toy",
        "1.0",
    ]


def test_a_gate_without_a_measurement_has_failed(tmp_path: Path) -> None:
    with pytest.raises(GateError):
        refuse_failures(_judge(tmp_path))


def test_what_was_not_run_is_listed_with_its_reason_and_does_not_fail(tmp_path: Path) -> None:
    judgement = _judge(tmp_path, _measured(None, reason="no such machine"))
    refuse_failures(judgement)
    assert [row.status for row in judgement.rows] == ["not run"]
    assert list(judgement.not_run()) == ["no such machine"]


def test_the_report_is_written_whatever_the_verdict(tmp_path: Path) -> None:
    judgement = _judge(tmp_path, _measured(math.nan))
    report = read_parity(judgement.json_path)
    assert [row.status for row in report.gates] == ["failed"]
    text = judgement.markdown_path.read_text()
    assert text.startswith("# Parity of toy\n")
    assert "relative_l2" in text


def test_errors_of_layers_go_into_the_reports_where_a_stage_measured_them(tmp_path: Path) -> None:
    assert _judge(tmp_path, _measured(1e-6)).layers_path is None
    error = LayerError(part="decoder", name="layer 0", relative_l2=0.5)
    layers = {}
    for name in ("int4", "int8"):
        folder = tmp_path / name
        folder.mkdir()
        curve = LayerCurve(variant=name, executor="toy", case="a", image="", layers=(error,))
        layers[name] = curve
        write_layers(folder / "layers.json", LayerReport(curves=(curve,)))
        write_parity(folder / "parity.json", ParityReport(measurements=()))
    stages = {f"parity.reference.{name}": tmp_path / name for name in layers}
    judgement = judge_gates(
        (),
        (*stages, "parity.onnx.fp32"),
        {
            "parity.onnx.fp32": Artifact(folder=tmp_path / "stage", digest=""),
            **{name: Artifact(folder=folder, digest="") for name, folder in stages.items()},
        },
        recipe="toy",
        quantized=(),
        sizes=(),
        store=Store(root=tmp_path / "store"),
        random_weights=False,
    )
    assert judgement.layers_path is not None
    assert judgement.layers_path in judgement.files
    assert read_layers(judgement.layers_path).curves == tuple(layers.values())
