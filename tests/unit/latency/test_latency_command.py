"""`latency`: one real tiny run, of which the structure is looked at, and possible mistakes."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from latency_samples import noisy_blocks, phase, run_of, with_threads

from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.cli import run
from validation.latency.history import read_history
from validation.latency.pair import Pair, render_pair
from validation.latency.samples import LatencyRun, read_run, render_run

Capture = pytest.CaptureFixture[str]

FAST = ("--threads", "1", "--min-seconds", "0.01", "--min-runs", "3", "--prompt-lengths", "16,900")
PHASES = [
    "load",
    "vision",
    "projector_embedding",
    "prefill.16",
    "decode",
    "time_to_first_token",
    "end_to_end",
]


def latency(*words: object) -> int:
    return run(["latency", *(str(word) for word in words)])


def stored(folder: Path, name: str, found: LatencyRun) -> Path:
    path = folder / name
    path.write_text(render_run(found))
    return path


def decode_run(seed: int, *, factor: float = 1.0) -> LatencyRun:
    return run_of(phase("decode", noisy_blocks(seed, factor=factor)))


def test_a_real_run_has_every_phase_with_its_samples(
    onnx_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "run.json"
    assert latency(onnx_bundle, *FAST, "--processes", 2, "--json", file) == 0
    told = capsys.readouterr()
    found = read_run(file)
    (variant,) = found.variants
    assert (variant.key, variant.status) == ("onnxruntime/fp32", "measured")
    assert [each.name for each in variant.phases] == PHASES
    for each in variant.phases:
        assert [len(block) >= 3 for block in each.blocks] == [True, True]
        assert (each.work is None) == (each.name in ("load", "projector_embedding"))
    assert len(variant.peak_memory_bytes) == 2
    assert min(variant.peak_memory_bytes) > 10_000_000
    assert "prefill.900 was left out: the context has 256 positions" in variant.notes
    assert found.roofline is not None
    assert found.environment.threads == 1
    assert set(found.environment.versions) == {"numpy", "onnxruntime"}
    assert all(name in told.out for name in PHASES)


def test_a_recorded_run_stays_with_its_bundle_in_report_and_card(
    onnx_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "small"
    shutil.copytree(onnx_bundle, bundle)
    assert latency(bundle, *FAST, "--processes", 1, "--record") == 0
    assert verify_bundle(bundle).ok
    (variant,) = read_run(bundle / "reports/latency.json").variants
    assert variant.status == "measured"
    assert "| tokens per s |" in (bundle / "README.md").read_text()
    (bundle / "config.json").write_text("{}")
    assert latency(bundle, *FAST, "--processes", 1, "--record") == 1


def test_two_bundles_are_compared_in_turns(
    onnx_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    kept = tmp_path / "both.json"
    reports = ("--junit", tmp_path / "a.xml", "--markdown", tmp_path / "a.md", "--json", kept)
    words = ("compare", onnx_bundle, onnx_bundle, *FAST, "--processes", 2, *reports, "--as-json")
    assert latency(*words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["interleaved"] is True
    assert [each["phase"] for each in document["changes"]] == PHASES
    assert len(list(ET.parse(tmp_path / "a.xml").iter("testcase"))) == len(PHASES)
    assert "| onnxruntime/fp32 | decode |" in (tmp_path / "a.md").read_text()
    # The same samples say the same again, and can be kept.
    assert latency("compare", kept, "--as-json") == 0
    assert json.loads(capsys.readouterr().out) == document
    assert latency("history", tmp_path / "kept", "--add", kept) == 0
    assert len(read_history(tmp_path / "kept")) == 2


def test_a_planted_slowdown_ends_with_1_and_equals_with_0(tmp_path: Path, capsys: Capture) -> None:
    base = stored(tmp_path, "base.json", decode_run(1))
    limit = ("--fail-if", "decode.p50>5%")
    slower = stored(tmp_path, "slower.json", decode_run(2, factor=1.1))
    equal = stored(tmp_path, "equal.json", decode_run(3))
    assert latency("compare", base, slower, *limit) == 1
    assert "slower.json is slower than" in capsys.readouterr().err
    assert latency("compare", base, equal, *limit) == 0


def test_a_mistaken_threshold_ends_with_2_before_anything_is_measured(capsys: Capture) -> None:
    assert latency("compare", "no", "where", "--fail-if", "decode.p51>5%") == 2
    assert "column 8: expected one of p50" in capsys.readouterr().err


def test_a_limit_on_what_will_not_be_measured_is_refused_before_it_is(
    onnx_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Without its graphs the bundle cannot be measured: only the plan can have told."""
    bundle = tmp_path / "small"
    shutil.copytree(onnx_bundle, bundle, ignore=shutil.ignore_patterns("onnx"))
    kept = ("--json", tmp_path / "both.json")
    for limit in ("int5:decode.p50>5%", "mlx/fp32:decode.p50>5%", "prefill.900.p50>5%"):
        assert latency("compare", bundle, bundle, *FAST, *kept, "--fail-if", limit) == 2
        told = capsys.readouterr().err
        assert "nothing that will be measured of both is meant by it" in told
        assert "hint: variants: onnxruntime/fp32; phases: load, vision, " in told
        assert "prefill.16, decode" in told
    assert not kept[1].exists()
    limit = ("--fail-if", "decode.p50>5%")
    assert latency("compare", bundle, bundle, *FAST, *kept, *limit, "--processes", 1) == 2
    assert "no phase of a variant in common" in capsys.readouterr().err
    assert kept[1].exists()  # whatever was measured is kept, though nothing can be said of it


def test_a_limit_on_what_is_not_stored_is_refused_with_what_is(
    tmp_path: Path, capsys: Capture
) -> None:
    files = [stored(tmp_path, f"{seed}.json", decode_run(seed)) for seed in (1, 2)]
    for limit in ("int8:decode.p50>5%", "vision.p50>5%"):
        assert latency("compare", *files, "--fail-if", limit) == 2
        told = capsys.readouterr().err
        assert "nothing that both runs have is meant by it" in told
        assert "hint: variants: onnxruntime/int4; phases: decode" in told


def test_a_kept_comparison_is_judged_again_by_other_limits(tmp_path: Path, capsys: Capture) -> None:
    pair = Pair(
        base_name="before",
        new_name="after",
        interleaved=True,
        base=decode_run(1),
        new=decode_run(2, factor=1.1),
    )
    kept = tmp_path / "both.json"
    kept.write_text(render_pair(pair))
    assert latency("compare", kept, "--fail-if", "decode.p50>20%") == 0
    told = capsys.readouterr().out
    assert "before" in told
    assert "stored samples" not in told  # they were measured in turns
    assert latency("compare", kept, "--fail-if", "decode.p50>5%") == 1
    assert "after is slower than before: onnxruntime/int4 decode +" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("both.json", "one.json"), "samples of two runs that were compared"),
        (("one.json",), "one.json is one side alone"),
        (("one.json", "one.json", "--json", "c.json"), "these samples are kept already"),
        (("both.json", "--json", "c.json"), "these samples are kept already"),
        (("one.json", "one.json", "--markdown", "no/where.md"), "there is no folder"),
        (("absent.json",), "there is no such file"),
        (("damaged.json",), "a sample is no time above 0"),
    ],
)
def test_files_that_do_not_belong_together_are_told(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    one = decode_run(1)
    stored(tmp_path, "one.json", one)
    pair = Pair(base_name="a", new_name="b", interleaved=False, base=one, new=decode_run(2))
    Path("both.json").write_text(render_pair(pair))
    bad = run_of(phase("decode", [[1.0, -1.0]]))
    Path("damaged.json").write_text(render_pair(replace(pair, new=bad)))
    assert latency("compare", *words) == 2
    assert said in capsys.readouterr().err
    assert not Path("c.json").exists()


def test_a_file_that_could_not_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: Capture
) -> None:
    nowhere = tmp_path / "no" / "where.json"
    for words in ((tmp_path / "bundle",), ("compare", tmp_path, tmp_path)):
        assert latency(*words, "--json", nowhere) == 2
        assert f"there is no folder {nowhere.parent}" in capsys.readouterr().err


def test_different_environments_end_with_2_unless_allowed(tmp_path: Path, capsys: Capture) -> None:
    base = stored(tmp_path, "base.json", decode_run(1))
    other = stored(tmp_path, "other.json", with_threads(decode_run(2), 1))
    assert latency("compare", base, other) == 2
    assert "threads: 2, then 1" in capsys.readouterr().err
    assert latency("compare", base, other, "--allow-different-environments") == 0
    assert "DIFFERENT ENVIRONMENTS: threads: 2, then 1" in capsys.readouterr().out


def test_a_bundle_and_a_file_cannot_be_compared(
    onnx_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert latency("compare", onnx_bundle, stored(tmp_path, "a.json", decode_run(1))) == 2
    assert "give two bundles, or two files of samples" in capsys.readouterr().err


def test_the_ml_program_executor_is_refused_with_the_reason(
    onnx_bundle: Path, capsys: Capture
) -> None:
    assert latency(onnx_bundle, "--runtime", "ml_program") == 2
    assert "a checker, not a runtime" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--variant", "int5"), "no variant int5"),
        (("--runtime", "mlx"), "nothing in it for the runtime mlx"),
        (("--prompt-lengths", "64,x"), "no list of lengths"),
    ],
)
def test_what_is_not_there_ends_with_2(
    onnx_bundle: Path, words: tuple[str, ...], message: str, capsys: Capture
) -> None:
    assert latency(onnx_bundle, *words) == 2
    assert message in capsys.readouterr().err


def test_a_history_is_added_to_and_shown(tmp_path: Path, capsys: Capture) -> None:
    for seed in (1, 2):
        file = stored(tmp_path, f"{seed}.json", decode_run(seed))
        assert latency("history", tmp_path / "kept", "--add", file) == 0
    assert "onnxruntime/int4  decode" in capsys.readouterr().out
    assert latency("history", tmp_path / "kept") == 0


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fastvlm_compile.cli import run; run(['latency', '--help']); "
        "print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"
