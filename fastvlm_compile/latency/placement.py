"""Where Core ML would run a variant's packages, as notes. Only on macOS."""

from pathlib import Path

from fastvlm_compile.bundle.manifest import Manifest
from fastvlm_compile.bundle.opening import packages_of
from fastvlm_compile.latency.request import Job


def placement_notes(bundle: Path, manifest: Manifest, job: Job) -> list[str]:
    """The compute plan of every package: shares of operations and of estimated cost by device."""
    from validation.runtimes.compute_plan import plan_table, read_function_plans
    from validation.runtimes.language_layout import read_layout

    paths = packages_of(bundle, manifest, job.variant)
    chunks = [paths.language / chunk.package for chunk in read_layout(paths.language).chunks]
    plans = [
        plan
        for package in (paths.vision, paths.projector, *chunks)
        for plan in read_function_plans(package, compute_units=job.units)
    ]
    return ["load compiles the packages too", *plan_table(plans).splitlines()]
