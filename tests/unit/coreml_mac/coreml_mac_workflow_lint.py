"""What GitHub does not tell before a workflow runs, told here: structure, pins, commands, links.

The values are read as plain strings, so that `on` stays a name. Source of the keys: GitHub's
"Workflow syntax for GitHub Actions".
"""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from fastvlm_compile.cli import COMMANDS

WORKFLOW_KEYS = {"name", "on", "permissions", "concurrency", "jobs", "env", "defaults"}
JOB_KEYS = {
    "concurrency",
    "continue-on-error",
    "env",
    "if",
    "name",
    "needs",
    "permissions",
    "runs-on",
    "steps",
    "strategy",
    "timeout-minutes",
}
STEP_KEYS = {"env", "id", "if", "name", "run", "timeout-minutes", "uses", "with"}
STRATEGY_KEYS = {"fail-fast", "matrix", "max-parallel"}
RUNNERS = {"ubuntu-24.04", "macos-15"}
CONTEXTS = {"github.workflow", "github.ref"}

_PINNED = re.compile(r"(?P<action>[\w.-]+/[\w./-]+)@[0-9a-f]{40}")
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


class StrictLoader(yaml.BaseLoader):
    """Every value a string, no key twice."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: '{key}' is given twice")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What the commands of a workflow may refer to."""

    root: Path
    targets: frozenset[str]
    extras: frozenset[str]


def read_repository(root: Path) -> Repository:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    return Repository(
        root=root,
        targets=frozenset(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)),
        extras=frozenset(project["optional-dependencies"]),
    )


def problems(text: str, repository: Repository) -> list[str]:
    """Everything that is wrong with a workflow."""
    try:
        workflow = yaml.load(text, StrictLoader)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    return [*_of_workflow(workflow), *_of_pins(text), *_of_jobs(workflow["jobs"], repository)]


def _of_workflow(workflow: Mapping[str, object]) -> Iterator[str]:
    yield from _unknown("workflow", workflow, WORKFLOW_KEYS)
    for key in ("name", "on", "jobs"):
        if not workflow.get(key):
            yield f"workflow: no {key}"
    if workflow.get("permissions") != {"contents": "read"}:
        yield f"workflow: permissions are {workflow.get('permissions')}, not the least"
    concurrency = workflow.get("concurrency")
    if not isinstance(concurrency, dict) or concurrency.get("cancel-in-progress") != "true":
        yield "workflow: older runs of a branch are not cancelled"


def _of_pins(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if "uses:" in line and not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line):
            yield f"not pinned to a commit with its version: {line.strip()}"


def _of_jobs(jobs: dict[str, dict[str, object]], repository: Repository) -> Iterator[str]:
    uploads: dict[str, set[str]] = {}
    for name, job in jobs.items():
        uploads[name] = set()
        needs = job.get("needs", [])
        needed = [needs] if isinstance(needs, str) else list(needs)  # type: ignore[call-overload]
        for other in needed:
            if other not in jobs:
                yield f"{name}: needs '{other}', which is no job"
            elif other not in uploads or other == name:
                yield f"{name}: needs '{other}', which does not come before it"
        within = set().union(*(uploads.get(other, set()) for other in needed))
        for problem in _of_job(job, repository, within, uploads[name]):
            yield f"{name}: {problem}"


def _of_job(
    job: dict[str, object], repository: Repository, within: set[str], uploads: set[str]
) -> Iterator[str]:
    """`within`: artifacts there are; `uploads` gets those that the job makes."""
    yield from _unknown("job", job, JOB_KEYS)
    if job.get("runs-on") not in RUNNERS:
        yield f"runs on {job.get('runs-on')}, known are {', '.join(sorted(RUNNERS))}"
    if not str(job.get("timeout-minutes", "")).isdigit():
        yield "no timeout-minutes"
    strategy = job.get("strategy", {})
    assert isinstance(strategy, dict)
    yield from _unknown("strategy", strategy, STRATEGY_KEYS)
    rows = strategy.get("matrix", {}).get("include", [])
    if len({frozenset(row) for row in rows}) > 1:
        yield "the rows of the matrix have different keys"
    known = CONTEXTS | {f"matrix.{key}" for row in rows for key in row}
    for expression in _EXPRESSION.findall(yaml.dump(job, width=10_000)):
        if expression not in known:
            yield f"'{expression}' is not known here"
    names = {str(name) for name in _mapping_at(job, "env")}
    for step in job["steps"]:  # type: ignore[attr-defined]
        yield from _of_step(step, repository, names)
        given = _mapping_at(step, "with")
        action = str(step.get("uses", "")).partition("@")[0]
        if action == "actions/upload-artifact":
            uploads.add(str(given["name"]))
        if action == "actions/download-artifact" and given.get("name") not in within:
            yield f"downloads '{given.get('name')}', which no needed job uploads"
    units = [row["compute-units"] for row in rows if "compute-units" in row]
    yield from _of_units(units)


def _of_step(step: dict[str, object], repository: Repository, names: set[str]) -> Iterator[str]:
    yield from _unknown("step", step, STEP_KEYS)
    if ("run" in step) == ("uses" in step):
        yield f"a step must have one of run and uses: {step}"
    given = _mapping_at(step, "with")
    action = _PINNED.match(str(step.get("uses", "")))
    is_checkout = action is not None and action["action"] == "actions/checkout"
    if is_checkout and given.get("persist-credentials") != "false":
        yield "checkout keeps the token in the working tree"
    for line in str(step.get("run", "")).splitlines():
        if "${{" in line:
            yield f"an expression in a script is open to injection: {line}"
        if missing := [n for n in re.findall(r"\$\{?(\w+)", line) if n not in names]:
            yield f"{', '.join(missing)} is not in env: {line}"
        yield from _of_command(shlex.split(line), repository)


def _of_command(words: list[str], repository: Repository) -> Iterator[str]:
    match words:
        case ["make", target] if target in repository.targets:
            return
        case ["fastvlm-compile", name, *arguments] if name in COMMANDS:
            yield from _of_arguments(name, arguments)
        case ["python", "-m", "pip", "install", "--constraint", path, what]:
            if not (repository.root / path).is_file():
                yield f"there is no {path}"
            for extra in re.findall(r"[\w-]+", what.partition("[")[2]):
                if extra not in repository.extras:
                    yield f"pyproject.toml has no extra '{extra}'"
        case [script] if (repository.root / script).is_file():
            if not (repository.root / script).stat().st_mode & 0o100:
                yield f"{script} is not executable"
        case _:
            yield f"not a command of this repository: {shlex.join(words)}"


def _of_arguments(name: str, arguments: list[str]) -> Iterator[str]:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    known = {option for parameter in command.params for option in parameter.opts}
    for word in arguments:
        if word.startswith("--") and word not in known:
            yield f"fastvlm-compile {name} has no option {word}"


def _of_units(units: list[str]) -> Iterator[str]:
    from validation.runtimes.coreml_runtime import COMPUTE_UNITS

    if units and sorted(units) != sorted(COMPUTE_UNITS):
        yield f"compute units {', '.join(units)}, known are {', '.join(COMPUTE_UNITS)}"


def _mapping_at(where: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = where.get(key, {})
    assert isinstance(found, dict)
    return found


def _unknown(what: str, found: Mapping[str, object], known: set[str]) -> Iterator[str]:
    for key in found:
        if key not in known:
            yield f"{what}: unknown key '{key}'"
