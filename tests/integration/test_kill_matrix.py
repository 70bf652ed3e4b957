"""The gates notice faults of saved packages: the kill matrix of the trained tiny model.

Fast: the control, a seeded part of the float32 matrix, and a gate that notices little. `full`: all
of it, float32 and float16.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml
from click.testing import CliRunner

from fastvlm_compile.commands.corruptions import corruptions
from fastvlm_compile.progress import silent
from fastvlm_compile.stages.coreml import CoreMLVisionConfig, vision
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
    decoder,
    embedding,
    projector,
)
from reference.loading import load
from reference.prompt import load_tokenizer
from validation.gates import Gate
from validation.golden_file import open_goldens
from validation.golden_inputs import golden_inputs
from validation.golden_plan import GoldenPlan
from validation.golden_run import run_reference
from validation.goldens import Goldens
from validation.kill_matrix.bench import ModelBench
from validation.kill_matrix.judge import gates
from validation.kill_matrix.matrix import (
    IntactPackagesFailError,
    Matrix,
    MatrixPlan,
    mutations,
    run_matrix,
)
from validation.kill_matrix.table import render
from validation.kill_matrix.whole import find_epsilons, run_all
from validation.runtimes.ml_program.executable import Rounding

pytestmark = pytest.mark.xdist_group("kill-matrix")

CHECKPOINT = Path(__file__).parents[2] / "recipes/tiny-checkpoint"
CONTEXT_LENGTH = 128
IMAGE_SIZE = 256
FURTHER_SIZES = (320,)

FAST = MatrixPlan(per_kind=1, limit=60)
FULL = MatrixPlan(per_kind=3)


@dataclass(frozen=True, kw_only=True)
class Material:
    """float32/ (one decoder package), float16/ (four) and what the reference computed."""

    folder: Path
    goldens: Goldens


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("kill_matrix")
    goldens = _make_goldens(folder / "goldens")
    _make_packages(folder / "float32", max_chunk_mb=1000)
    return Material(folder=folder, goldens=goldens)


@pytest.fixture(scope="module")
def both(float32: Material) -> Material:
    _make_packages(float32.folder / "float16", max_chunk_mb=0.55)
    return float32


@pytest.fixture(scope="module")
def fast(float32: Material) -> Matrix:
    return _run(float32, FAST)


def _make_goldens(out: Path) -> Goldens:
    """As the tiny recipe's: with a prompt that fills the context, without which its last positions
    are never looked at.
    """
    plan = GoldenPlan(
        image_size=IMAGE_SIZE,
        fit="pad",
        image_position="before",
        scenes=3,
        photographs=1,
        prompts=("Describe the image.",),
        max_new_tokens=12,
        task_questions=0,
        context_to_fill=CONTEXT_LENGTH,
        image_sizes=FURTHER_SIZES,
    )
    out.mkdir()
    tokenizer = load_tokenizer(CHECKPOINT)
    run_reference(load(CHECKPOINT), tokenizer, golden_inputs(plan), out, silent)
    return open_goldens(out)


def _make_packages(out: Path, *, max_chunk_mb: float) -> None:
    out.mkdir()
    weights = {"weights": CHECKPOINT}
    precision: Literal["float32", "float16"] = "float32" if out.name == "float32" else "float16"
    tower = CoreMLVisionConfig(
        image_size=IMAGE_SIZE, image_sizes=FURTHER_SIZES, precision=precision
    )
    vision(tower, weights, out, silent)
    rows = CoreMLProjectorConfig(
        image_size=IMAGE_SIZE, image_sizes=FURTHER_SIZES, precision=precision
    )
    projector(rows, weights, out, silent)
    embedding(CoreMLEmbeddingConfig(precision=precision), weights, out, silent)
    sizes = CoreMLDecoderConfig(
        context_length=CONTEXT_LENGTH,
        prefill_chunk=32,
        max_chunk_mb=max_chunk_mb,
        precision=precision,
    )
    decoder(sizes, weights, out, silent)


def _run(material: Material, plan: MatrixPlan, *, limits: tuple[Gate, ...] | None = None) -> Matrix:
    return run_matrix(
        material.folder / "float32",
        material.goldens,
        plan,
        silent,
        epsilons=find_epsilons(CHECKPOINT),
        limits=limits,
    )


def _told(matrix: Matrix) -> str:
    return "\n".join(render(matrix))


def test_there_are_at_least_150_faults_of_at_least_15_kinds_in_every_file(
    float32: Material,
) -> None:
    found = mutations(float32.folder / "float32", FULL)
    assert len(found) >= 150
    assert len({fault.kind for fault in found}) >= 15
    assert len({fault.name for fault in found}) == len(found)
    assert {fault.file for fault in found} == {
        "fastvithd.mlpackage",
        "projector.mlpackage",
        "embedding.safetensors",
        "decoder.mlpackage",
        "language.json",
    }


def test_the_same_seed_chooses_the_same_faults_and_another_seed_others(float32: Material) -> None:
    folder = float32.folder / "float32"
    names = [fault.name for fault in mutations(folder, FAST)]
    assert names == [fault.name for fault in mutations(folder, FAST)]
    assert names != [fault.name for fault in mutations(folder, replace(FAST, seed=1))]


def test_intact_packages_pass_every_gate_and_goldens_of_other_packages_are_refused(
    float32: Material,
) -> None:
    assert _run(float32, replace(FAST, limit=1)).outcomes
    impossible = (_weak_gate("vision", 1e-12),)
    with pytest.raises(IntactPackagesFailError, match="before anything was damaged"):
        _run(float32, replace(FAST, limit=1), limits=impossible)


def test_with_rounding_an_answer_that_turns_without_a_fault_is_not_asked(
    float32: Material,
) -> None:
    folder, index = float32.folder / "float32", float32.goldens.index

    def answers(rounding: Rounding, num_turned: int) -> list[bool]:
        turned = tuple(
            replace(case, token_ids=(*case.token_ids, 0)) if place < num_turned else case
            for place, case in enumerate(index.cases)
        )
        goldens = Goldens(float32.goldens.directory, replace(index, cases=turned))
        return [agrees for _, agrees in ModelBench(goldens, folder, rounding).answers(folder)]

    num_asked = sum(case.generated for case in index.cases)
    assert answers("fp16", 0) == [True] * num_asked
    assert answers("fp16", 1) == [True] * (num_asked - 1)
    assert answers("none", 1).count(False) == 1
    assert answers("fp16", num_asked).count(False) == num_asked  # goldens of another model


def test_every_fault_of_a_seeded_part_is_noticed_or_shown_to_change_nothing(fast: Matrix) -> None:
    assert len(fast.outcomes) == 60
    assert not fast.holes, _told(fast)
    assert {outcome.status for outcome in fast.outcomes} == {"killed", "refused", "equivalent"}


def test_a_weak_gate_lets_most_faults_through_and_they_are_told_as_holes(
    float32: Material,
) -> None:
    weak = tuple(_weak_gate(component, 1.0) for component in ("vision", "projector"))
    matrix = run_matrix(
        float32.folder / "float32",
        float32.goldens,
        replace(FAST, limit=10),
        silent,
        limits=weak,
    )
    assert len(matrix.holes) >= 3
    assert "SURVIVED" in _told(matrix)


def test_the_gates_of_the_matrix_are_those_of_the_tiny_recipe() -> None:
    recipe = yaml.safe_load((CHECKPOINT.parent / "tiny.yaml").read_text(encoding="utf-8"))
    limits = {
        (
            gate["variant"],
            gate["component"].removesuffix("_precision"),
            gate["metric"],
        ): gate.get("max", gate.get("min"))
        for gate in recipe["gates"]
        if gate["target"] == "coreml"
    }
    for gate in (*gates("float32"), *gates("float16")):
        key = (gate.variant, gate.component, gate.metric)
        assert key in limits
        if gate.component != "end_to_end":  # of a single answer, all or nothing
            assert gate.threshold == limits[key]


def test_the_command_prints_the_matrix_as_a_table_and_as_json(float32: Material) -> None:
    arguments = [str(float32.folder / "float32"), "--config", str(CHECKPOINT), "--limit", "4"]
    table = CliRunner().invoke(corruptions, arguments)
    assert table.exit_code == 0, table.output
    assert "holes: none" in table.stdout
    assert "not executed by Core ML" in table.stdout
    listed = CliRunner().invoke(corruptions, [*arguments, "--json"])
    (matrix,) = json.loads(listed.stdout)
    assert matrix["executed_by_core_ml"] is False
    assert len(matrix["faults"]) >= 4


@pytest.mark.full
def test_every_float32_fault_is_noticed_or_shown_to_change_nothing(both: Material) -> None:
    float32_matrix, float16_matrix = run_all(
        both.folder, both.goldens, FULL, silent, epsilons=find_epsilons(CHECKPOINT)
    )
    assert len(float32_matrix.outcomes) >= 150
    assert not float32_matrix.holes, _told(float32_matrix)
    assert not [o for o in float16_matrix.outcomes if o.status == "crashed"], _told(float16_matrix)
    # Half precision hides small faults by design; the float32 sibling is what finds those.
    assert len(float16_matrix.holes) <= 0.1 * len(float16_matrix.outcomes), _told(float16_matrix)


def _weak_gate(component: str, maximum: float) -> Gate:
    return Gate(
        target="coreml",
        variant="float32",
        component=component,
        metric="relative_l2",
        max=maximum,
        why="for the test",
    )
