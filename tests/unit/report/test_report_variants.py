"""Rows of the variants: each cell is a measurement, or says why there is none."""

import math

import pytest
from report_samples import measured, variant

from fastvlm_compile.report.variants import Cell, pareto_front, variant_rows


def test_every_cell_is_the_measurement_of_its_name() -> None:
    (row,) = variant_rows(variant("onnx", "int4", size_bytes=1e6, kl=0.01, accuracy=0.75))
    assert (row.target, row.variant) == ("onnx", "int4")
    values = {name: cell.value for name, cell in vars(row).items() if isinstance(cell, Cell)}
    assert values == {
        "size_bytes": 1e6,
        "bits_per_weight": 4.0,
        "kl_decoder": 0.02,
        "kl_end_to_end": 0.01,
        "top1": 0.99,
        "top5": 0.975,
        "psnr_db": 40.5,
        "greedy": 0.9,
        "task_accuracy": 0.75,
        "task_accuracy_drop": 0.25,
    }
    assert row.executors == ("onnxruntime 1",)


def test_core_ml_features_are_those_of_the_tower() -> None:
    rows = variant_rows(
        (
            measured("coreml", "int8", "vision", "psnr_db", 30.0),
            measured("coreml", "int8", "vision_encoder", "psnr_db", 99.0),
        )
    )
    assert rows[0].psnr_db.value == 30.0


def test_what_was_not_run_keeps_its_reason_and_what_is_absent_has_none() -> None:
    (row,) = variant_rows(
        (measured("onnx", "int4", "end_to_end", "task_accuracy", None, reason="no questions"),)
    )
    assert row.task_accuracy == Cell(value=None, reason="no questions", num_cases=100)
    assert row.size_bytes == Cell()
    assert row.executors == ()


def test_a_component_of_the_wrong_structure_says_so_in_its_cells() -> None:
    (row,) = variant_rows(
        (
            measured("onnx", "int4", "decoder", "structure", 0.0),
            measured("onnx", "int4", "end_to_end", "structure", 1.0),
        )
    )
    assert row.kl_decoder.reason.startswith("not comparable")
    assert row.kl_end_to_end == Cell()


def test_the_quantized_references_come_last_and_have_no_files() -> None:
    rows = variant_rows(
        (
            measured("reference", "int4", "decoder", "kl_mean", 0.1),
            measured("onnx", "fp32", "decoder", "kl_mean", 0.0),
            measured("mlx", "fp16", "decoder", "kl_mean", 0.0),
        )
    )
    assert [row.target for row in rows] == ["onnx", "mlx", "reference"]
    assert [row.has_files for row in rows] == [True, True, False]


def test_a_variant_is_core_mls_only_if_all_of_it_is() -> None:
    other = measured("coreml", "float16", "decoder", "kl_mean", 0.1)
    (row,) = variant_rows((other,))
    assert not row.executed_by_core_ml


def test_the_front_has_what_nothing_else_equals_or_beats() -> None:
    points = [(2.0, 0.3), (1.0, 0.5), (3.0, 0.3), (2.0, 0.4), (4.0, 0.1), (5.0, 0.2)]
    assert pareto_front(points) == ((1.0, 0.5), (2.0, 0.3), (4.0, 0.1))
    for size, loss in points:
        beaten = any(s <= size and e <= loss and (s, e) != (size, loss) for s, e in points)
        assert beaten == ((size, loss) not in pareto_front(points))


@pytest.mark.parametrize("point", [(math.nan, 0.0), (0.5, math.nan)])
def test_nan_is_on_no_front_and_hides_nothing(point: tuple[float, float]) -> None:
    assert pareto_front([point, (1.0, 0.5)]) == ((1.0, 0.5),)
    assert pareto_front([point]) == ()
