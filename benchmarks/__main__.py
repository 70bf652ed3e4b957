"""`make bench`: build a recipe from nothing, twice, and record what each stage cost.

    python -m benchmarks [--recipe recipes/tiny.yaml] [--report benchmarks/build_tiny]

Writes REPORT.json and REPORT.md. The store and the bundle are temporary.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.page import listed, write
from benchmarks.watch import Watched, describe_machine, watch

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxruntime", "onnxsim", "coremltools")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What the store recorded of one stage."""

    stage: str
    duration_s: float
    peak_memory_bytes: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class BuildCost:
    """A build from nothing, and the same build once more."""

    recipe: str
    first: Watched
    second: Watched
    stages: tuple[StageCost, ...]
    bundle_bytes: int
    summary: str
    """The build's own last words on its gates."""


def main() -> None:
    """Parse, build, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/tiny.yaml"))
    parser.add_argument("--report", type=Path, default=Path("benchmarks/build_tiny"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost = measure(arguments.recipe, Path(folder))
    machine = describe_machine(LIBRARIES)
    load = psutil.getloadavg()[2]
    report = {**asdict(cost), "machine": machine, "load_15_minutes": round(load, 2)}
    write(
        arguments.report.with_suffix(arguments.report.suffix + ".json"),
        json.dumps(report, indent=2),
    )
    write(
        arguments.report.with_suffix(arguments.report.suffix + ".md"), markdown(cost, machine, load)
    )


def measure(recipe: Path, folder: Path) -> BuildCost:
    """Build `recipe` twice under `folder`, whose store and bundle are read afterwards."""
    store, bundle = folder / "store", folder / "bundle"
    program = [sys.executable, "-m", "fastvlm_compile"]
    places = ["--store", str(store), "--out", str(bundle)]
    command = [*program, "build", str(recipe), *places, "--json"]
    first = watch(command)
    second = watch(command)
    listing = run_json([*program, "store", "ls", "--store", str(store), "--json"])
    assert isinstance(listing, list)
    stages = tuple(
        StageCost(**{name: entry[name] for name in StageCost.__dataclass_fields__})
        for entry in sorted(listing, key=lambda entry: float(entry["finished_s"]))
    )
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    statuses = [gate["status"] for variant in manifest["variants"] for gate in variant["gates"]]
    summary = ", ".join(f"{statuses.count(s)} {s}" for s in ("passed", "failed", "not run"))
    return BuildCost(
        recipe=recipe.name,
        first=first,
        second=second,
        stages=stages,
        bundle_bytes=sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
        summary=summary,
    )


def run_json(command: list[str]) -> object:
    """What a reading command prints."""
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def markdown(cost: BuildCost, machine: dict[str, str], load: float) -> str:
    """The report as a page."""
    first, second = cost.first, cost.second
    lines = [
        f"# Building {cost.recipe}",
        "",
        f"From nothing: {first.wall_s:.0f} s, {first.cpu_s:.0f} s of processor time, peak "
        f"{first.peak_anonymous_bytes / GIB:.2f} GiB allocated by the whole process tree "
        f"({first.peak_resident_bytes / GIB:.2f} GiB with mapped files, which the system can "
        "drop).",
        f"Once more, nothing changed: {second.wall_s:.1f} s.",
        f"The bundle has {cost.bundle_bytes / 1e6:.0f} MB; gates: {cost.summary}.",
        "",
        "| stage | wall s | peak resident GiB | written MB |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| `{stage.stage}` | {stage.duration_s:.1f} | {stage.peak_memory_bytes / GIB:.2f} "
        f"| {stage.size_bytes / 1e6:.1f} |"
        for stage in cost.stages
    ]
    lines += [
        "",
        f"Machine: {listed(machine)}. "
        f"Load over 15 minutes {load:.1f}: other work makes times upper bounds.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
