"""How several recipes end: one that fails leaves the others alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastvlm_compile.console import Reporter
from fastvlm_compile.errors import RecipesError
from fastvlm_compile.pipeline import BuildRequest, BuildResult, build
from fastvlm_compile.runner import Finished, Workshop, run_stages
from reference.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one recipe ended: with a result or with an error."""

    recipe: str
    result: BuildResult | None = None
    error: UserError | None = None


def ended(
    request: BuildRequest,
    reporter: Reporter,
    run: Callable[[Workshop], Finished] = run_stages,
    *,
    alone: bool,
) -> Ending:
    """Build one recipe; its failure is an ending, a mistake of ours is raised.

    Args:
        request: what to build.
        reporter: told of every turn.
        run: see `pipeline.build`.
        alone: whether it is the only one; else a line tells its ending at once, for all endings
            are told in full only when the last recipe has come to its own.
    """
    try:
        ending = Ending(recipe=request.recipe.name, result=build(request, reporter, run))
    except UserError as error:
        ending = Ending(recipe=request.recipe.name, error=error)
    if not alone:
        reporter.tell("bundle", _in_one_line(ending))
    return ending


def _in_one_line(ending: Ending) -> str:
    if ending.error is not None:
        return f"failed: {ending.error.message.splitlines()[0]}"
    assert ending.result is not None
    return ending.result.ending


def build_in_turn(
    requests: Sequence[BuildRequest], reporters: Sequence[Reporter]
) -> tuple[Ending, ...]:
    """Build recipes on this machine, one after the other."""
    pairs = zip(requests, reporters, strict=True)
    alone = len(requests) == 1
    return tuple(ended(request, reporter, alone=alone) for request, reporter in pairs)


def refuse_failed(endings: Sequence[Ending]) -> None:
    """Raises RecipesError that names the recipes which failed, if any did.

    Its exit code is the gravest: 3 for a mistake of ours, then 2 for one in what was given, then 1
    for a gate.
    """
    failed = {each.recipe: each.error for each in endings if each.error is not None}
    if failed:
        raise RecipesError(
            f"{len(failed)} of {len(endings)} recipes failed: {', '.join(failed)}",
            exit_code=max(error.exit_code for error in failed.values()),
        )
