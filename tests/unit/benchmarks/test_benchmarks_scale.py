"""What `make bench-scale` records of a build, what it holds it against, and what it refuses."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.room import Room

ROOT = Path(__file__).parents[3]
GIB = 2**30


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    return import_module("benchmarks.scale")


@pytest.fixture
def report(scale: ModuleType) -> ModuleType:
    return import_module("benchmarks.scale_report")


@pytest.fixture
def building(scale: ModuleType) -> ModuleType:
    return import_module("benchmarks.scale_build")


def took(*, gib: float = 1.0, minutes: float = 10.0) -> Estimate:
    return Estimate(memory_bytes=int(gib * GIB), disk_bytes=10**9, time_s=60 * minutes)


def figures(report: ModuleType, **changes: object) -> object:
    """A 7B that meets everything."""
    kinds = import_module("benchmarks.scale_figures")
    stages = (
        kinds.StageFigures(stage="weights", took=took(minutes=5), estimate=took(minutes=5)),
        kinds.StageFigures(stage="golden", took=took(), estimate=took()),
    )
    whole = kinds.Took(wall_s=95 * 60, peak_bytes=12 * GIB)
    variant = kinds.VariantFigures(
        target="onnx", variant="int4", bits_per_weight=4.512, size_bytes=4 * 10**9
    )
    found = kinds.RecipeFigures(
        recipe="7b",
        stages=stages,
        whole=whole,
        gates={"passed": 30, "failed": 0, "not run": 1},
        bundle_bytes=10**10,
        variants=(variant,),
        log="scale_7b.log",
        machine={"cores": "2"},
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def missed(report: ModuleType, **changes: object) -> list[str]:
    return [each.what for each in report.judge(figures(report, **changes)) if not each.met]


def test_a_build_at_the_limits_meets_them(report: ModuleType) -> None:
    assert missed(report) == []
    (time,) = (each for each in report.judge(figures(report)) if "checkpoint" in each.what)
    assert (time.found, time.limit) == ("90.0 min", "<= 90 min")  # 5 made the weights up


def test_every_limit_can_be_missed(report: ModuleType) -> None:
    kinds = import_module("benchmarks.scale_figures")
    over = kinds.Took(wall_s=95 * 60, peak_bytes=12 * GIB + 1)
    assert missed(report, whole=over) == ["peak memory"]
    late = kinds.Took(wall_s=96 * 60, peak_bytes=GIB)
    assert missed(report, whole=late) == ["from checkpoint to gated bundle"]
    failed = {"passed": 30, "failed": 1, "not run": 0}
    assert missed(report, gates=failed) == ["from checkpoint to gated bundle", "gates"]
    assert missed(report, bundle_bytes=0) == ["from checkpoint to gated bundle"]
    nan = kinds.Took(wall_s=float("nan"), peak_bytes=GIB)
    assert missed(report, whole=nan) == ["from checkpoint to gated bundle"]


def test_estimates_that_are_off_missing_or_of_half_the_work_are_told(report: ModuleType) -> None:
    kinds = import_module("benchmarks.scale_figures")
    good = kinds.StageFigures(stage="golden", took=took(), estimate=took())
    off = replace(good, estimate=replace(took(gib=1.3), time_s=70.0))
    assert off.off == ("memory", "time")
    soon = kinds.Took(wall_s=80 * 60, peak_bytes=GIB)
    assert missed(report, whole=soon, stages=(good, off)) == [
        "estimate of all stages' memory",
        "estimate of all stages' time",
        "estimates of memory within 25 %",
        "estimates of time within 25 %",
    ]
    for stage in (replace(good, estimate=None), replace(good, resumed=True)):
        assert stage.off == ()
        assert len(missed(report, whole=soon, stages=(good, stage))) == 3


def test_what_the_whole_takes_is_judged_beside_what_each_stage_takes(report: ModuleType) -> None:
    kinds = import_module("benchmarks.scale_figures")
    late = kinds.StageFigures(stage="a", took=took(gib=2), estimate=took(gib=2, minutes=5))
    early = kinds.StageFigures(stage="b", took=took(), estimate=took(minutes=14))
    soon = kinds.Took(wall_s=80 * 60, peak_bytes=GIB)
    missed_ones = missed(report, whole=soon, stages=(late, early))
    assert missed_ones == ["estimates of time within 25 %"]
    found = {j.what: j.found for j in report.judge(figures(report, stages=(late, early)))}
    assert found["estimate of all stages' memory"] == "2.0 for 2.0 GiB"
    assert found["estimate of all stages' disk"] == "2.0 for 2.0 GB"
    assert found["estimate of all stages' time"] == "19.0 for 20.0 min"


def test_a_build_that_nobody_watched_is_judged_by_its_stages(report: ModuleType) -> None:
    judged = report.judge(figures(report, whole=None))
    whats = {each.what: each.found for each in judged}
    assert whats["peak memory, of the largest stage"] == "1.00 GiB"
    assert whats["from checkpoint to gated bundle, sum of stages"] == "10.0 min"


def test_data_and_page_say_the_same_and_recipes_keep_their_figures(
    scale: ModuleType, report: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "scale"
    scale.add(figures(report), path)
    scale.add(figures(report, recipe="0.5b"), path)
    known = report.load_report(path)
    assert list(known.recipes) == ["0.5b", "7b"]
    assert known.recipes["7b"] == figures(report)
    page = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert page == report.markdown(known).rstrip("\n") + "\n"
    assert "| 7b | peak memory | 12.00 GiB | <= 12 GiB | met |" in page
    assert "| 0.5b | peak memory | 12.00 GiB | <= 4 GiB | missed |" in page
    assert "| onnx.int4 | 4.51 | 4000 |" in page


def test_parts_are_judged_by_the_memory_of_the_whole_until_it_is_there(
    scale: ModuleType, report: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "scale"
    for part in ("onnx", "mlx"):
        scale.add(figures(report, recipe=f"7b-{part}", part_of="7b"), path)
    known = report.load_report(path)
    assert list(known.recipes) == ["7b-mlx", "7b-onnx"]
    whats = [each.what for each in report.judge(known.recipes["7b-mlx"])]
    assert "peak memory" in whats
    assert "from checkpoint to gated bundle" not in whats  # a part is not all that takes time
    assert "A part of 7b" in report.markdown(known)
    scale.add(figures(report), path)
    assert list(report.load_report(path).recipes) == ["7b"]


def test_rates_read_the_stages_of_a_recipe_and_of_its_parts(
    scale: ModuleType, report: ModuleType, tmp_path: Path
) -> None:
    kinds, rates = import_module("benchmarks.scale_figures"), import_module("benchmarks.rates")
    path = tmp_path / "scale"
    stage = kinds.StageFigures(stage="mlx.int4", took=took(), estimate=None)
    again = replace(stage, stage="mlx.int8", resumed=True)
    scale.add(figures(report, recipe="7b-onnx", part_of="7b"), path)
    scale.add(figures(report, recipe="7b-mlx", part_of="7b", stages=(stage, again)), path)
    scale.add(figures(report, recipe="0.5b", stages=(stage,)), path)
    found = rates.read_source("7b", report.json_path(path))
    assert set(found) == {"weights", "golden", "mlx.int4"}
    assert set(rates.read_source("0.5b", report.json_path(path))) == {"mlx.int4"}


def test_times_of_a_crowded_machine_are_told_and_not_learnt_from(
    scale: ModuleType, report: ModuleType, tmp_path: Path
) -> None:
    rates = import_module("benchmarks.rates")
    alone, crowded = (figures(report, load_15_minutes=load) for load in (2.4, 2.6))
    path = tmp_path / "scale"
    for each, remark in ((alone, False), (crowded, True)):
        scale.add(each, path)
        page = report.markdown(report.load_report(path))
        assert ("work beside the build made its times longer" in page) == remark
        found = rates.read_source("7b", report.json_path(path))
        assert all(stage.memory_bytes > 0 for stage in found.values())
        assert all((stage.time_s == rates.NO_TIME_S) == remark for stage in found.values())


def test_a_time_that_does_not_count_is_not_fitted_and_never_off(scale: ModuleType) -> None:
    rates = import_module("benchmarks.rates")
    known = rates.load_recorded()["7b.yaml"]
    rows = list(rates.rows_of("7b.yaml", known))
    untimed = replace(rows[0], took=replace(rows[0].took, time_s=rates.NO_TIME_S))
    found = rates.fitted([untimed, *rows[1:]])
    others = rates.fitted(rows[1:])
    assert found.kinds[rows[0].kind].time_s == others.kinds[rows[0].kind].time_s
    assert found.kinds[rows[0].kind].memory_gb != others.kinds[rows[0].kind].memory_gb
    (shown,) = rates.beside([untimed], found)
    assert (shown.pace, shown.off) == (1.0, ())
    page = rates.markdown([shown], [shown])
    assert page.count("| 7b.yaml | 1 of 1 | 1 of 1 | 0 of 0 | 1.00 |") == 2


def test_a_recipe_of_a_slow_day_does_not_blur_the_rates(scale: ModuleType) -> None:
    rates = import_module("benchmarks.rates")
    known = rates.load_recorded()["7b.yaml"]
    rows = list(rates.rows_of("7b.yaml", known))
    slow = [replace(row, recipe="slow", took=row.at_mean_pace(0.5).took) for row in rows]
    found = rates.fitted_at_paces([*rows, *slow])
    paces = [rates.pace_of(each, found) for each in (rows, slow)]
    assert paces[1] == pytest.approx(2 * paces[0], rel=0.01)
    alone = rates.fitted_at_paces(rows)
    ratios = [rates.foretold(r, found).time_s / rates.foretold(r, alone).time_s for r in rows]
    assert ratios == pytest.approx([2**0.5] * len(rows), rel=0.05)


def test_a_disk_that_is_too_small_is_told_before_anything_starts(
    scale: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    monkeypatch.setattr(scale, "room_here", lambda _: Room(memory_bytes=0, disk_bytes=10**9))
    places = ["--work", str(work), "--report", str(tmp_path / "scale")]
    status = scale.main([str(ROOT / "recipes" / "0.5b.yaml"), *places])
    said = capsys.readouterr()
    assert status == 2
    assert "GB more than the 1.0 GB that are free" in said.err
    assert "hint: name fewer recipes" in said.err
    assert not work.exists()
    assert list(tmp_path.iterdir()) == []


def test_stores_that_are_kept_take_their_disk_together(
    scale: ModuleType, building: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "room_here", lambda _: Room(memory_bytes=0, disk_bytes=15))
    jobs = [
        scale.Job(
            recipe=Path(f"{name}.yaml"),
            name=name,
            part_of="",
            place=building.Workplace(folder=tmp_path / name, store=tmp_path / name / "store"),
            disk_bytes=10,
            time_s=1.0,
            estimates={},
        )
        for name in ("a", "b")
    ]
    scale.check_disk(jobs, tmp_path, keep=False)
    with pytest.raises(scale.DiskError):
        scale.check_disk(jobs, tmp_path, keep=True)


def test_a_go_that_was_lost_leaves_the_whole_unknown(building: ModuleType, tmp_path: Path) -> None:
    place = building.Workplace(folder=tmp_path, store=tmp_path / "store")
    goes = [
        building.Go(took=building.Took(wall_s=10.0, peak_bytes=5)),
        building.Go(took=building.Took(wall_s=3.0, peak_bytes=7)),
    ]
    assert place.whole() is None
    place.save_goes(tuple(goes))
    assert place.goes() == tuple(goes)
    if building.MemoryMeter.works_here():
        assert place.whole() == building.Took(wall_s=13.0, peak_bytes=7)
    place.save_goes((*goes, building.Go()))
    assert place.whole() is None


def test_estimates_are_those_from_before_the_first_go(building: ModuleType, tmp_path: Path) -> None:
    place = building.Workplace(folder=tmp_path / "7b", store=tmp_path / "store")
    place.save_estimates({"golden": took()})
    place.save_estimates({"golden": took(gib=2.0)})
    assert place.estimates() == {"golden": took()}


def test_a_log_names_no_folder_of_this_machine(building: ModuleType, tmp_path: Path) -> None:
    inner = tmp_path / "store"
    text = f"{inner}/logs/a.log under {tmp_path}/x, and /"
    names = {tmp_path: "WORK", inner: "STORE", Path("/"): "~"}
    assert building.without_paths(text, names) == "STORE/logs/a.log under WORK/x, and /"


def test_a_store_without_the_build_is_told(
    scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastvlm_compile.store import Store

    Store(root=tmp_path / "store").open()
    arguments = ["--from-store", str(tmp_path / "store"), "--bundle", str(tmp_path / "bundle")]
    recipe = ["--recipe", str(ROOT / "recipes" / "tiny.yaml")]
    assert scale.main([*arguments, *recipe, "--report", str(tmp_path / "scale")]) == 2
    assert "no whole build of tiny" in capsys.readouterr().err
    assert not (tmp_path / "scale.json").exists()


def test_figures_of_a_build_are_json_that_is_read_again(report: ModuleType) -> None:
    from fastvlm_compile.structure import from_plain, to_plain

    found = figures(report)
    assert from_plain(json.loads(json.dumps(to_plain(found))), type(found)) == found
