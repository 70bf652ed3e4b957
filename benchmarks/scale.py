"""`make bench-scale`: build every size from nothing, and hold what it takes against the limits.

    python -m benchmarks.scale [RECIPE...] [--work build/scale] [--in-parts [--part PART]] [--keep]
    python -m benchmarks.scale --from-store STORE --bundle DIR --recipe RECIPE [--log FILE]

Writes REPORT.json, REPORT.md and a log of each build beside them; recipes that are not named keep
the figures that they have. The disk that is needed is told first, and nothing starts without it:
--in-parts takes less, for it builds a recipe's targets one after the other, drops what the next
does not need, and records each by itself; --part builds these alone. A run that was killed goes on
where it was: a recipe's folder below --work is removed when all are done. The second form reads a
store and a bundle that are there already.

Exit codes: 0 done, 1 a gate failed, 2 the disk is too small or a build could not start.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.scale_build import Workplace, build, without_paths
from benchmarks.scale_figures import RecipeFigures, read_figures
from benchmarks.scale_parts import GROUPS, keep_stages, write_parts
from benchmarks.scale_report import load_report, with_figures, write_report
from fastvlm_compile.console import format_bytes, format_duration
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.forecast import forecast
from fastvlm_compile.estimate.room import room_here
from fastvlm_compile.estimate.tables import to_build
from fastvlm_compile.latest import load_record
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.store import Store
from fastvlm_compile.structure import from_plain, to_plain
from fastvlm_compile.verdict import verdicts
from fastvlm_compile.weights import weights_folder, with_weights_used
from reference.errors import UserError

ROOT = Path(__file__).parents[1]
RECIPES = tuple(ROOT / "recipes" / f"{size}.yaml" for size in ("0.5b", "1.5b", "7b"))
GATE_FAILED = 1
USAGE = 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, or a part of one, that is to be built and measured.

    Attributes:
        recipe: its file.
        name: its name.
        part_of: name of the whole recipe; empty when it is the whole.
        place: where it is built.
        disk_bytes: estimate of what is still to be written; 0 when it is measured already.
        time_s: estimate of what is still to be built.
        estimates: of each stage.
    """

    recipe: Path
    name: str
    part_of: str
    place: Workplace
    disk_bytes: int
    time_s: float
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A recipe and the jobs that make it, one after the other in one store."""

    folder: Path
    store: Path
    jobs: tuple[Job, ...]


class DiskError(UserError):
    """The builds do not fit the disk."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check the disk, build, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE", default=RECIPES)
    parser.add_argument("--work", type=Path, default=Path("build/scale"))
    parser.add_argument("--report", type=Path, default=Path("benchmarks/scale"))
    parser.add_argument("--in-parts", action="store_true", help="a target at a time: less disk")
    parser.add_argument(
        "--part", action="append", choices=GROUPS, help="of --in-parts, not the others"
    )
    parser.add_argument("--keep", action="store_true", help="the stores and bundles")
    parser.add_argument("--even-if-too-large", action="store_true", help="as of `build`")
    parser.add_argument("--from-store", type=Path, metavar="STORE", help="build nothing")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="that was built from it")
    parser.add_argument("--recipe", type=Path, metavar="RECIPE", help="of which")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what its build said")
    given = parser.parse_args(arguments)
    if given.from_store is not None and (given.bundle is None or given.recipe is None):
        parser.error("--from-store needs --bundle and --recipe")
    if given.in_parts and given.keep:
        parser.error("--in-parts drops what --keep would keep")
    if given.part and not given.in_parts:
        parser.error("--part is of --in-parts")
    try:
        if given.from_store is not None:
            return read(given.recipe, given.from_store, given.bundle, given.log, given.report)
        return measure(
            given.recipes,
            given.work,
            given.report,
            parts=(given.part or tuple(GROUPS)) if given.in_parts else (),
            keep=given.keep,
            even_if_too_large=given.even_if_too_large,
        )
    except UserError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"error: {error.message}\n{hint}")
        return USAGE


def measure(
    recipes: Sequence[Path],
    work: Path,
    report: Path,
    *,
    parts: Sequence[str],
    keep: bool,
    even_if_too_large: bool,
) -> int:
    """Build recipes one after another and record each.

    Args:
        recipes: their files.
        work: where they are built.
        report: where their figures go.
        parts: that are built one after the other; none builds each recipe at once.
        keep: the stores and bundles.
        even_if_too_large: as of `build`.

    Raises:
        DiskError: they do not fit.
        UserError: a recipe cannot be read, or has no parts.
    """
    wholes = [plan(recipe, work, parts) for recipe in recipes]
    check_disk([job for whole in wholes for job in whole.jobs], work, keep=keep)
    for whole in wholes:
        for index, job in enumerate(whole.jobs):
            if job.place.figures.is_file():
                continue
            job.place.save_estimates(job.estimates)
            status = build(job.recipe, job.place, even_if_too_large=even_if_too_large)
            if status not in (0, GATE_FAILED):
                sys.stderr.write(f"error: the build of {job.name} ended with exit code {status}\n")
                return status
            record(job, report, work)
            if not keep:
                shutil.rmtree(job.place.bundle, ignore_errors=True)
            if later := whole.jobs[index + 1 :]:
                keep_needed(whole.store, later)
        if not keep:
            shutil.rmtree(whole.store, ignore_errors=True)
    found = [load_figures(job.place.figures) for whole in wholes for job in whole.jobs]
    if not keep:
        for whole in wholes:
            shutil.rmtree(whole.folder)
    return GATE_FAILED if any(each.gates["failed"] for each in found) else 0


def plan(recipe: Path, work: Path, parts: Sequence[str]) -> Whole:
    """A recipe, and what of it is still to be done.

    Raises:
        UserError: it cannot be read, or has no parts.
    """
    name = load_recipe(recipe).name
    folder = work / name
    store = folder / "store"
    if parts:
        files = write_parts(recipe, folder / "parts")
        jobs = tuple(
            plan_job(file, Workplace(folder=folder / part, store=store), part_of=name)
            for part, file in files.items()
            if part in parts
        )
    else:
        jobs = (plan_job(recipe, Workplace(folder=folder, store=store), part_of=""),)
    return Whole(folder=folder, store=store, jobs=jobs)


def plan_job(recipe_path: Path, place: Workplace, *, part_of: str) -> Job:
    """One job, and what of it is still to be done.

    Raises:
        UserError: its recipe cannot be read.
    """
    named = load_recipe(recipe_path)
    weights = weights_folder(named, recipe_path=recipe_path, chosen=None)
    recipe = with_weights_used(named, weights=weights)
    whole = forecast(recipe, weights=weights, base=None)
    store = Store(root=place.store)
    left = to_build(tuple(verdicts(whole.plan, store, load_record(store, recipe.name))))
    total = whole.total(() if place.figures.is_file() else left)
    return Job(
        recipe=recipe_path,
        name=named.name,
        part_of=part_of,
        place=place,
        disk_bytes=total.written_bytes,
        time_s=total.time_s,
        estimates=whole.stages,
    )


def check_disk(jobs: Sequence[Job], work: Path, *, keep: bool) -> None:
    """Tell what is needed.

    Raises:
        DiskError: by how much it is too much.
    """
    for job in jobs:
        needs = f"{format_bytes(job.disk_bytes)} of disk, about {format_duration(job.time_s)}"
        done = job.place.figures.is_file()
        print(f"{job.name}: {'measured already, see ' + str(job.place.folder) if done else needs}")
    sizes = [job.disk_bytes for job in jobs]
    needed = sum(sizes) if keep else max(sizes, default=0)
    free = room_here(work).disk_bytes
    how = "all are kept" if keep else "one after another"
    print(f"needed below {work}: {format_bytes(needed)} ({how}); free: {format_bytes(free)}")
    if needed > free:
        raise DiskError(
            f"{work}: these builds need {format_bytes(needed)} of disk, "
            f"{format_bytes(needed - free)} more than the {format_bytes(free)} that are free",
            hint="name fewer recipes, take --in-parts, or name a folder on a larger disk with "
            "--work",
        )


def record(job: Job, report: Path, work: Path) -> None:
    """Put what a job that was just built took, and its log, beside the others'."""
    place = job.place
    figures = read_figures(
        job.name,
        Store(root=place.store),
        place.bundle,
        whole=place.whole(),
        estimates=place.estimates(),
        log=keep_log(place.log, report, job.name, {work: "WORK"}),
        part_of=job.part_of,
    )
    add(figures, report)
    place.figures.write_text(json.dumps(to_plain(figures)), encoding="utf-8")


def load_figures(path: Path) -> RecipeFigures:
    """What was kept."""
    return from_plain(json.loads(path.read_bytes()), RecipeFigures)


def keep_needed(store: Path, jobs: Sequence[Job]) -> None:
    """Drop from a store what none of these jobs needs."""
    freed_bytes = keep_stages(Store(root=store), {name for job in jobs for name in job.estimates})
    names = " and ".join(job.name for job in jobs)
    print(f"dropped what {names} can do without: {format_bytes(freed_bytes)}")


def read(recipe_path: Path, store: Path, bundle: Path, log: Path | None, report: Path) -> int:
    """Record a build that somebody else ran.

    Raises:
        UserError: there is none.
    """
    name = load_recipe(recipe_path).name
    figures = read_figures(name, Store(root=store), bundle, whole=None, estimates={})
    if log is not None:
        places = {store: "STORE", bundle: "BUNDLE"}
        figures = replace(figures, log=keep_log(log, report, name, places))
    add(figures, report)
    return GATE_FAILED if figures.gates["failed"] else 0


def keep_log(log: Path, report: Path, name: str, places: Mapping[Path, str]) -> str:
    """Copy a log beside the report, without paths of this machine; the copy's name."""
    copy = report.with_name(f"{report.name}_{name}.log")
    text = log.read_text(encoding="utf-8")
    usual = {ROOT: ".", Path.home(): "~", Path(tempfile.gettempdir()): "TMP"}
    copy.write_text(without_paths(text, usual | dict(places)), encoding="utf-8")
    print(copy)
    return copy.name


def add(figures: RecipeFigures, report: Path) -> None:
    """Put the figures of a recipe in place of those that it had."""
    for path in write_report(report, with_figures(load_report(report), figures)):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
