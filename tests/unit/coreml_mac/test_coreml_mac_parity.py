"""A report for each compute unit: whole where the unit lived, failed rows where it died."""

from pathlib import Path

import pytest

from fastvlm_compile.progress import silent
from reference.loading import load
from reference.prompt import PromptTokenizer, load_tokenizer
from validation.coreml_parity import CoreMLParity, measure_coreml
from validation.coreml_units_parity import UnitMeasured, measure_coreml_units
from validation.gates import Gate, GateRow, all_passed, judge
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_units import UnitSettings
from validation.tensor_parity import Tolerance

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

PLAN = GoldenPlan(
    image_size=128,
    fit="pad",
    image_position="before",
    scenes=1,
    photographs=0,
    prompts=("What?",),
    max_new_tokens=3,
    task_questions=1,
)
CONFIG = CoreMLParity(tolerance=Tolerance(rtol=1e-2, atol=1e-3))
GATES = [
    Gate(target="coreml", variant="float32", component=component, metric="relative_l2", max=1e-4,
         why="float32 arithmetic in another order")
    for component in ("vision", "decoder")
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(random_checkpoint: Path) -> PromptTokenizer:
    return load_tokenizer(random_checkpoint)


@pytest.fixture(scope="module")
def goldens(
    random_checkpoint: Path, tokenizer: PromptTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Goldens:
    directory = tmp_path_factory.mktemp("mac_goldens")
    run_reference(load(random_checkpoint), tokenizer, golden_inputs(PLAN), directory, silent)
    return open_goldens(directory)


def settings(factory: str) -> UnitSettings:
    return UnitSettings(
        units=("cpu_only", "cpu_and_gpu"),
        call_limit_s=120,
        factory=f"coreml_mac_stand_ins:{factory}",
        is_core_ml=False,
    )


@pytest.fixture(scope="module")
def measured(
    goldens: Goldens, siblings: Packages, tokenizer: PromptTokenizer
) -> tuple[UnitMeasured, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return measure_coreml_units(
            CONFIG,
            goldens=goldens,
            packages=siblings,
            tokenizer=tokenizer,
            progress=silent,
            settings=settings("aborts_in_the_decoder"),
        )


def row(rows: tuple[GateRow, ...], component: str, metric: str) -> GateRow:
    (found,) = (each for each in rows if (each.component, each.metric) == (component, metric))
    return found


def test_a_unit_that_lives_gives_the_numbers_of_the_same_packages_here(
    measured: tuple[UnitMeasured, ...],
    goldens: Goldens,
    siblings: Packages,
    tokenizer: PromptTokenizer,
) -> None:
    expected = measure_coreml(
        CONFIG, goldens=goldens, packages=siblings, tokenizer=tokenizer, progress=silent
    )

    def numbers(measurements: tuple[Measurement, ...]) -> dict[tuple[str, str], float | None]:
        return {(m.component, m.metric): m.value for m in measurements}

    unit = measured[0]
    found = numbers(unit.measurements)
    assert found.pop(("process", "structure")) == 1
    assert found.pop(("caches", "structure")) == 1
    assert found == numbers(expected.measurements)
    assert unit.outputs is not None
    assert unit.report.status == "ran"
    assert all_passed(judge(unit.measurements, GATES))


def test_a_unit_that_dies_half_way_keeps_what_it_gave_before_and_fails(
    measured: tuple[UnitMeasured, ...],
) -> None:
    unit = measured[1]
    rows = judge(unit.measurements, GATES)
    assert row(rows, "vision", "relative_l2").status == "passed"
    assert row(rows, "decoder", "relative_l2").status == "failed"
    process = row(rows, "process", "structure")
    assert process.status == "failed"
    assert "the process ended with signal SIGABRT during logits_after" in process.reason
    assert not all_passed(rows)
    assert unit.outputs is None


def test_no_row_claims_core_ml_where_a_stand_in_computed(
    measured: tuple[UnitMeasured, ...],
) -> None:
    assert not any(m.executed_by_core_ml for unit in measured for m in unit.measurements)
    assert {m.executor for unit in measured for m in unit.measurements} <= {"stand-in", ""}


def test_off_a_mac_every_number_of_every_unit_is_not_run(
    goldens: Goldens,
    packages: Packages,
    tokenizer: PromptTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    units = measure_coreml_units(
        CONFIG,
        goldens=goldens,
        packages=packages,
        tokenizer=tokenizer,
        progress=silent,
        settings=UnitSettings(),
    )
    assert len(units) == 4
    for unit in units:
        assert unit.measurements
        assert all("macOS" in m.not_run_reason for m in unit.measurements)
