"""`doctor` tells what works here and what each missing part costs."""

import json

import pytest

from fastvlm_compile.cli import COMMANDS, run
from fastvlm_compile.doctor import CORE_ML, ML_PROGRAM, NEEDS, Examination, examine
from fastvlm_compile.machine import describe_machine


def without(*missing: str, platform: str = "linux") -> Examination:
    return examine(lambda name: None if name in missing else "1.0", platform=platform)


def status(examination: Examination) -> dict[str, str]:
    return {entry.name: entry.status for entry in examination.capabilities}


def test_with_everything_installed_everything_works_but_core_ml() -> None:
    states = status(without())
    assert states.pop(CORE_ML) == "not available"
    assert set(states.values()) == {"works"}


def test_without_torch_packages_are_not_run_in_reports_and_doctor_says_so() -> None:
    (executor,) = (c for c in without("torch").capabilities if c.name == ML_PROGRAM)
    assert executor.status == "missing"
    assert executor.reason == (
        "needs torch; without it Core ML packages are `not run` in every report"
    )
    assert executor.cure == "pip install 'fastvlm-compile[build]'"


def test_core_ml_packages_run_on_a_mac_that_has_coremltools() -> None:
    assert status(without(platform="darwin"))[CORE_ML] == "works"
    assert status(without("coremltools", platform="darwin"))[CORE_ML] == "missing"


def test_core_ml_says_that_it_needs_macos() -> None:
    core_ml = without().capabilities[-1]
    assert core_ml.reason.startswith("needs macOS")
    assert not core_ml.cure


def test_a_missing_part_costs_what_needs_it_and_nothing_else() -> None:
    states = status(without("coremltools"))
    assert [name for name, state in states.items() if state == "missing"] == [
        "validate, target coreml",
        "build, target coreml",
    ]


def test_what_is_missing_is_named_with_its_cure() -> None:
    entries = {entry.name: entry for entry in without("torch", "onnxsim").capabilities}
    build = entries["build, target onnx"]
    assert build.reason == "needs torch, onnxsim"
    assert build.cure == "pip install 'fastvlm-compile[build]'"
    assert entries["generate --runtime onnxruntime"].status == "works"
    onnxruntime = {entry.name: entry for entry in without("onnxruntime").capabilities}
    assert onnxruntime["generate --runtime onnxruntime"].cure == "pip install 'fastvlm-compile'"


def test_a_push_needs_the_hub_s_library_and_nothing_else_does() -> None:
    entries = without("huggingface_hub").capabilities
    (push,) = (entry for entry in entries if entry.status == "missing")
    assert (push.name, push.reason) == ("push", "needs huggingface_hub")
    assert push.cure == "pip install 'fastvlm-compile[hub]'"


def test_many_machines_come_with_an_extra_of_their_own() -> None:
    entries = {entry.name: entry for entry in without("distributed").capabilities}
    many = entries["build --scheduler, on many machines"]
    assert (many.status, many.reason) == ("missing", "needs distributed")
    assert many.cure == "pip install 'fastvlm-compile[dask]'"
    assert entries["build --store URL"].status == "works"


def test_verify_needs_no_library_and_alone_is_not_useful() -> None:
    nothing = without(*{name for needs in NEEDS.values() for name in needs})
    assert status(nothing)["verify"] == "works"
    assert not nothing.useful
    assert without("torch").useful


def test_every_capability_is_of_a_command_that_exists() -> None:
    assert {name.split()[0].rstrip(",") for name in NEEDS} <= set(COMMANDS)


def test_the_command_tells_all_of_it_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out
    for word in ("generate --runtime onnxruntime", "onnxruntime 1.", "cores", "GiB free"):
        assert word in told


def test_the_command_tells_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in told["capabilities"]} == {*NEEDS, ML_PROGRAM, CORE_ML}
    assert told["versions"]["numpy"]
    assert told["machine"]["num_cores"] >= 1


def test_where_nothing_works_the_command_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvlm_compile.doctor.examine", lambda: without(*everything()))
    assert run(["doctor"]) == 1
    assert "nothing works here" in capsys.readouterr().err


def everything() -> set[str]:
    return {name for needs in NEEDS.values() for name in needs}


def test_the_machine_has_cores_memory_and_disk(tmp_path) -> None:
    machine = describe_machine(tmp_path)
    assert machine.num_cores >= 1
    assert machine.memory_bytes > 2**27
    assert machine.free_disk_bytes > 0


def test_a_missing_extra_is_named_by_what_it_would_bring() -> None:
    entries = {entry.name: entry for entry in without("mlx", "numba").capabilities}
    assert entries["generate --runtime mlx"].cure == "pip install 'fastvlm-compile[mlx]'"
    assert entries["build, quantized variants"].cure == "pip install 'fastvlm-compile[build]'"
    both = {entry.name: entry for entry in without("mlx", "torch").capabilities}
    assert both["build, target mlx"].cure == "pip install 'fastvlm-compile[build,mlx]'"
