"""`build` from a small checkpoint to a bundle: real stages, real gates, the command line's ends."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_recipe import small_recipe

from fastvlm_compile import cli
from fastvlm_compile.tree_digest import StatMemo, read_tree

pytestmark = pytest.mark.xdist_group("small-bundle")  # one worker builds it once

RECIPE = small_recipe(
    """\
targets:
  onnx: {variants: [fp32], logits: last, opset: 21}
  torch: {}
gates:
  - target: onnx
    variant: fp32
    component: vision_encoder
    metric: relative_l2
    max: 1.0e-4
    why: float32 rounding
  - target: onnx
    variant: fp32
    component: end_to_end
    metric: greedy_agreement
    min: 1
    why: a float32 copy says the same words
""",
    photographs=1,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path) -> Path:
    """A folder with a recipe, its store and its bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(random_checkpoint, folder / "checkpoint")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = _run(folder, "build", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "dist/small\n"
    assert done.stderr.endswith("bundle: published\n")
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built folder that a test may change."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastvlm_compile", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _digest(folder: Path) -> str:
    return read_tree(folder, StatMemo(), hidden=True).digest


def _written(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every path with its inode and the time of its last change."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def _replace(folder: Path, pattern: str, text: str) -> None:
    path = folder / "recipe.yaml"
    changed, count = re.subn(pattern, text, path.read_text(), count=1)
    assert count == 1
    path.write_text(changed)


def test_the_bundle_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "dist/small"]) == 0


def test_a_second_build_runs_nothing_writes_nothing_and_loads_no_heavy_library(
    folder: Path,
) -> None:
    before = _written(folder / "dist")
    code = (
        "import sys\n"
        "from fastvlm_compile.cli import run\n"
        "code = run(['build', 'recipe.yaml'])\n"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'coremltools', 'skimage', 'tokenizers')\n"
        "print(code, *[name for name in heavy if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["dist/small", "0"]
    stages = [line.split()[1] for line in done.stderr.splitlines() if "  " in line]
    assert set(stages) == {"hit"}
    assert done.stderr.endswith("bundle: up to date\n")
    assert _written(folder / "dist") == before


def test_a_failed_gate_ends_with_1_keeps_the_old_bundle_and_measures_nothing_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _digest(folder / "dist")
    _replace(folder, r"max: 1\.0e-4", "max: 1.0e-30")
    assert cli.run(["build", "recipe.yaml"]) == 1
    captured = capsys.readouterr()
    assert "built in" not in captured.err
    assert "gates failed; nothing was published" in captured.err
    assert "FAILED  onnx.fp32.vision_encoder  relative_l2" in captured.err
    assert "hint: the whole report is .store/reports/small/parity.md" in captured.err
    assert _digest(folder / "dist") == before
    report = json.loads(Path(".store/reports/small/parity.json").read_text())
    assert "failed" in {row["status"] for row in report["gates"]}


def test_a_failed_gate_publishes_nothing_where_nothing_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("dist")
    _replace(folder, r"max: 1\.0e-4", "max: 1.0e-30")
    assert cli.run(["build", "recipe.yaml"]) == 1
    assert not Path("dist").exists()


def test_a_changed_bundle_is_made_again_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _digest(folder / "dist")
    with Path("dist/small/onnx/embed_tokens.onnx").open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    assert cli.run(["status", "recipe.yaml"]) == 0
    assert "is not what the latest build" in capsys.readouterr().out
    assert cli.run(["build", "recipe.yaml"]) == 0
    assert "bundle: published" in capsys.readouterr().err
    assert _digest(folder / "dist") == before


def test_the_same_build_elsewhere_gives_the_same_bundle(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same stages: that the stages themselves are reproducible is tested with them."""
    before = _digest(folder / "dist" / "small")
    assert cli.run(["build", "recipe.yaml", "--out", "elsewhere/bundle", "--json"]) == 0
    assert _digest(folder / "elsewhere" / "bundle") == before
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] == "elsewhere/bundle"
    assert told["gates"]["failed"] == 0


def test_plan_tells_the_recipe_key_that_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _replace(folder, "logits: last", "logits: full")
    assert cli.run(["plan", "recipe.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[0]: line for line in lines}
    assert told["onnx.decoder_model_merged"].endswith(
        '  miss: recipe key targets.onnx.logits: "last" -> "full"'
    )
    assert told["onnx.vision_encoder"].split()[1:] == ["-", "-", "-", "hit"]
    assert told["parity.onnx.fp32"].endswith("  miss: waits for onnx.decoder_model_merged")


def test_a_place_taken_by_something_else_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("letters").mkdir()
    Path("letters/one").write_text("dear")
    assert cli.run(["build", "recipe.yaml", "--out", "letters"]) == 2
    assert [path.name for path in Path("letters").iterdir()] == ["one"]
