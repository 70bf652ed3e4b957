"""The workflow files say what they must: they cannot run here, so they are read closely."""

import subprocess
import sys
from pathlib import Path

import pytest
from coreml_mac_workflow_lint import Repository, problems, read_repository

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*"))


@pytest.fixture(scope="module")
def repository() -> Repository:
    return read_repository(ROOT)


def test_both_workflows_are_there() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "core-ml.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_refers_only_to_what_there_is(path: Path, repository: Repository) -> None:
    assert problems(path.read_text(encoding="utf-8"), repository) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_keeps_githubs_schema(path: Path) -> None:
    """GitHub's own schema, as the linter ships it; nothing is fetched."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.github-workflows", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ci_runs_what_everybody_runs(repository: Repository) -> None:
    assert "run: .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    called = [line.split()[1] for line in script.splitlines() if line.startswith("make ")]
    assert called
    assert repository.targets.issuperset(called)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("needs: bundle", "needs: bundel", "needs 'bundel', which is no job"),
        ("run: make bundle", "run: make bundel", "not a command of this repository: make bundel"),
        ("validate bundle", "validat bundle", "not a command of this repository"),
        ("--report", "--rapport", "fastvlm-compile validate has no option --rapport"),
        ("[coreml]", "[cormel]", "pyproject.toml has no extra 'cormel'"),
        ("timeout-minutes: 30", "timeout: 30", "unknown key 'timeout'"),
        ("steps:", "step:", "unknown key 'step'"),
        ("contents: read", "contents: write", "not the least"),
        ("persist-credentials: false", "persist-credentials: true", "keeps the token"),
        (" # v5.0.0", "", "not pinned to a commit"),
        ("@08c6903cd8c0fde910a37f88322edcfb5dd907a8", "@v5", "not pinned to a commit"),
        ("runs-on: macos-15", "runs-on: macos-latest", "runs on macos-latest"),
        ("cancel-in-progress: true", "cancel-in-progress: false", "are not cancelled"),
        ('"$COMPUTE_UNITS"', '"$COMPUTE_UNIT"', "COMPUTE_UNIT is not in env"),
        ('"$COMPUTE_UNITS"', "${{ matrix.compute-units }}", "open to injection"),
        ("matrix.may-fail", "matrix.can-fail", "'matrix.can-fail' is not known here"),
        ("compute-units: cpu_and_ne", "compute-units: ane", "compute units cpu_only"),
        (
            "name: bundle\n          path: bundle",
            "name: bundles\n          path: bundle",
            "uploads",
        ),
        ("name: core-ml\n", "name: core-ml\nname: again\n", "'name' is given twice"),
        ("        run: make bundle", "        ran: make bundle", "one of run and uses"),
    ],
)
def test_a_mistake_in_a_workflow_is_found(
    repository: Repository, old: str, new: str, told: str
) -> None:
    text = (ROOT / ".github/workflows/core-ml.yml").read_text(encoding="utf-8")
    assert old in text
    if old == "steps:":
        text = text.replace("steps:", "step: []\n    steps:", 1)
    else:
        text = text.replace(old, new, 1)
    found = problems(text, repository)
    assert any(told in problem for problem in found), found
