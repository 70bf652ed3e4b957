"""The executor's speed is measured side by side with the reference, and the record keeps to it."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    return import_module("benchmarks.executor")


def test_all_run_in_turns_and_the_first_turn_does_not_count(benchmark: ModuleType) -> None:
    order: list[str] = []

    def run(name: str, *values: float) -> Callable[[], np.ndarray]:
        given = iter(values)

        def one() -> np.ndarray:
            order.append(name)
            return np.array([1.0, next(given)])

        return one

    found = benchmark.in_turns(
        "vision",
        run("reference", 0, 0, 0),
        {"float32": run("float32", 0, 0, 0), "float16": run("float16", 0, 0.5, 0)}.__getitem__,
        2,
    )
    assert order == ["reference", "float32", "float16"] * 3
    assert [(each.precision, each.turns, each.limit) for each in found] == [
        ("float32", 2, 1.8),
        ("float16", 2, 1.8),
    ]
    assert [each.worst_relative_l2 for each in found] == [0.0, 0.5]


def test_a_ratio_is_that_of_turns_and_one_disturbed_turn_does_not_move_it(
    benchmark: ModuleType,
) -> None:
    assert benchmark.ratio([2.0, 2.0, 40.0], [1.0, 1.0, 10.0]) == pytest.approx(2.0)
    assert benchmark.ratio([3.0, 3.0, 3.0], [1.0, 1.0, 1.0]) == pytest.approx(3.0)


def test_the_page_tells_every_package_and_every_cache(benchmark: ModuleType) -> None:
    same = benchmark.in_turns("decoder", lambda: np.ones(1), lambda _: lambda: np.ones(1), 1)
    cost = import_module("benchmarks.watch").Watched(
        wall_s=1, cpu_s=1, peak_resident_bytes=2**31, peak_anonymous_bytes=2**30
    )
    memory = (benchmark.Memory(cache_mib=256, token_s=0.5, cost=cost),)
    page = benchmark.markdown(same, memory, {"cores": "2"}, 1.5)
    assert "| decoder, float16 |" in page
    assert "| 256 | 1.00 | 0.50 |" in page


def test_the_record_keeps_to_what_the_executor_is_allowed(benchmark: ModuleType) -> None:
    limits = benchmark.LIMITS
    path = ROOT / "benchmarks" / "executor.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    found = {(each["component"], each["precision"]) for each in record["timed"]}
    assert found == {(name, kind) for name in limits for kind in ("float32", "float16")}
    for each in record["timed"]:
        assert each["limit"] == limits[each["component"]]
        assert each["ratio"] <= each["limit"]
        assert each["turns"] >= 3
