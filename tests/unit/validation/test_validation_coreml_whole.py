"""The whole model as packages against the goldens, every part by itself and all together."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coreml_packages import Spoiled, export_packages

from fastvlm_compile.progress import silent
from reference.errors import UserError
from validation.coreml_parity import CoreMLParity, Measured, measure_coreml
from validation.error_table import error_table
from validation.gate_table import executor_notes, markdown_table
from validation.gates import Gate, judge
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.package_outputs import (
    NoOutputs,
    PackageOutputs,
    read_outputs,
    write_outputs,
)
from validation.runtimes.core_ml_executor import NotRunnable, Opened, Packages, open_packages
from validation.runtimes.core_ml_paths import packages_in_stages
from validation.tensor_parity import Tolerance

PARTS = ("vision", "projector", "decoder")
CALLS = {"projector": "project", "decoder": "logits_after"}


@pytest.fixture(scope="module")
def packages(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory):
    """Both precisions."""

    def export(precision):
        root = tmp_path_factory.mktemp(precision)
        folders = export_packages(random_checkpoint, root, precision, 128)
        paths = packages_in_stages(folders)
        return Packages(vision=paths.vision, whole=paths, precision=precision)

    return {precision: export(precision) for precision in ("float32", "float16")}


@pytest.fixture(scope="module")
def measure(goldens, tokenizer, packages):
    """`measure(precision, **fields of CoreMLParity)`, always on the ML Program executor."""

    def run(precision: str, *, on: Goldens = goldens, **fields: object) -> Measured:
        config = CoreMLParity(tolerance=Tolerance(rtol=1e-2, atol=1e-3))
        return measure_coreml(
            replace(config, **fields),
            goldens=on,
            packages=packages[precision],
            tokenizer=tokenizer,
            progress=silent,
        )

    return run


@pytest.fixture(scope="module")
def float32(measure) -> Measured:
    return measure("float32")


@pytest.fixture(scope="module")
def float16(measure, float32) -> Measured:
    return measure("float16", sibling=float32.outputs)


def table(measured: Measured) -> dict[tuple[str, str], Measurement]:
    return {(m.component, m.metric): m for m in measured.measurements}


def test_the_float32_packages_compute_what_the_reference_computes(float32: Measured) -> None:
    found = table(float32)
    for component in (*PARTS, "end_to_end"):
        assert found[component, "structure"].value == 1.0
        assert found[component, "relative_l2"].value <= 1e-5
    assert found["embedding", "max_abs"].value == 0.0
    assert found["end_to_end", "greedy_agreement"].value == 1.0
    assert found["end_to_end", "task_greedy_agreement"].value == 1.0
    assert found["end_to_end", "task_accuracy_drop"].value == 0.0
    assert not any("precision" in component for component, _ in found)


def test_every_number_names_its_executor_and_none_is_said_to_be_core_mls(
    float32: Measured, float16: Measured
) -> None:
    for measured, rounding in ((float32, "none"), (float16, "fp16")):
        for m in measured.measurements:
            assert m.executor.startswith("ML Program executor (torch ")
            assert m.executor.endswith(f"rounding {rounding})")
            assert m.executed_by_core_ml is False
    gate = Gate(
        target="coreml", variant="float32", component="vision", metric="relative_l2", max=1, why="x"
    )
    rows = judge(float32.measurements, [gate])
    assert executor_notes(rows) == ("coreml.float32: ML Program parity, not executed by Core ML",)
    assert "ML Program parity, not executed by Core ML" in markdown_table(rows)
    by_core_ml = [replace(row, executed_by_core_ml=True) for row in rows]
    assert not executor_notes(by_core_ml)


def test_what_precision_costs_is_told_apart_from_the_conversion(
    float32: Measured, float16: Measured
) -> None:
    found = table(float16)
    for part in PARTS:
        cost = found[f"{part}_precision", "relative_l2"].value
        total = found[part, "relative_l2"].value
        assert 1e-4 < cost < 2e-2  # half precision, neither nothing nor ruin
        assert total == pytest.approx(cost, rel=0.02)  # the conversion adds nothing to be seen
    text = error_table((*float32.measurements, *float16.measurements))
    assert text.count("ML Program parity, not executed by Core ML") == 3
    assert error_table([m for m in float16.measurements if m.value is None]) == ""


def test_the_watch_names_the_op_that_reaches_farthest(float16: Measured) -> None:
    for part, package in zip(PARTS, ("fastvithd", "projector", "decoder"), strict=True):
        peak = table(float16)[part, "fp16_peak"]
        assert 0 < peak.value < 0.5
        assert peak.worst.startswith(f"{package}.mlpackage: ")


@pytest.mark.parametrize(
    ("sibling", "reason"),
    [
        (NoOutputs(reason="not in the bundle"), "not in the bundle"),
        (
            PackageOutputs(executor="Core ML (macOS 15)", executed_by_core_ml=True, arrays={}),
            "the float32 packages ran elsewhere: Core ML (macOS 15)",
        ),
    ],
)
def test_without_float32_outputs_of_the_same_executor_precision_is_not_run(
    measure, goldens: Goldens, sibling: PackageOutputs | NoOutputs, reason: str
) -> None:
    few = Goldens(goldens.directory, replace(goldens.index, questions=()))
    found = table(measure("float16", sibling=sibling, on=few))
    for part in PARTS:
        assert found[f"{part}_precision", "relative_l2"].not_run_reason == reason
        assert found[part, "relative_l2"].value is not None
    assert found["end_to_end", "task_accuracy"].not_run_reason


def spoiled(packages: Packages, **parts: object) -> Opened:
    opened = open_packages(packages)
    assert isinstance(opened, Opened)
    assert opened.whole is not None
    whole = opened.whole
    given = {"project": whole.project, "logits_after": whole.logits_after} | {
        name: make(getattr(whole, name)) for name, make in parts.items()
    }
    return replace(opened, whole=Spoiled(model=whole, **given))


def no_memory(logits_after):
    """Every piece starts from an empty cache."""
    return lambda pieces: np.concatenate([logits_after([piece]) for piece in pieces])


def one_late(logits_after):
    """The first row of all is taken in twice, so that every other comes one position late."""
    return lambda pieces: logits_after([np.concatenate([pieces[0][:1], pieces[0]]), *pieces[1:]])


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("projector", lambda run: lambda x: run(x) * np.float32(1.02)),
        ("projector", lambda run: lambda x: run(x)[:, ::-1].copy()),
        ("projector", lambda run: lambda x: np.full_like(run(x), np.nan)),
        ("decoder", no_memory),
        ("decoder", one_late),
        ("decoder", lambda run: lambda pieces: run(pieces)[:, ::-1].copy()),
        ("decoder", lambda run: lambda pieces: run(pieces)[:, :-1]),
    ],
)
def test_a_part_that_is_wrong_is_the_part_that_fails(
    measure, goldens: Goldens, packages, part, fault
) -> None:
    gates = [
        Gate(target="coreml", variant="float32", component=component, metric="relative_l2",
             max=1e-5, why="the conversion alone")
        for component in PARTS
    ]  # fmt: skip
    few = Goldens(goldens.directory, replace(goldens.index, questions=()))
    opened = spoiled(packages["float32"], **{CALLS[part]: fault})
    rows = judge(measure("float32", on=few, executor=lambda _: opened).measurements, gates)
    failed = {row.component for row in rows if row.status == "failed"}
    assert part in failed
    assert failed <= {part, "end_to_end"}


def test_where_nothing_executes_packages_every_number_says_so(measure) -> None:
    nowhere = NotRunnable(reason="no executor")
    for precision in ("float32", "float16"):
        measured = measure(precision, executor=lambda _: nowhere)
        described, *others = measured.measurements
        assert described.metric == "structure"
        assert described.executor == "package description read, nothing executed"
        assert {m.not_run_reason for m in others} == {"no executor"}
        assert measured.outputs is None
        keys = set(table(measured))
        assert ("end_to_end", "task_greedy_agreement") in keys
        assert (("decoder_precision", "kl_max") in keys) == (precision == "float16")
        assert (("decoder", "fp16_peak") in keys) == (precision == "float16")


def test_without_torch_the_reason_names_it(packages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delitem(sys.modules, "validation.runtimes.ml_program_runtime", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = open_packages(packages["float32"])
    assert found == NotRunnable(
        reason="Core ML needs macOS, this is linux; "
        "the ML Program executor needs torch, which is not installed"
    )


def test_the_outputs_survive_the_way_to_the_next_stage(float32: Measured, tmp_path: Path) -> None:
    assert float32.outputs is not None
    write_outputs(tmp_path, float32.outputs)
    found = read_outputs(tmp_path)
    assert isinstance(found, PackageOutputs)
    assert found.executor == float32.outputs.executor
    assert not found.executed_by_core_ml
    assert found.arrays.keys() == float32.outputs.arrays.keys()
    for name, array in found.arrays.items():
        assert np.array_equal(array, float32.outputs.arrays[name])
    path = tmp_path / "outputs.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        read_outputs(tmp_path)
    path.unlink()
    assert isinstance(read_outputs(tmp_path), NoOutputs)
