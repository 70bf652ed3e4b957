"""Hit or miss, and why: the same question for `plan`, which only looks, and for `build`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.code_digest import PROJECT, CodeReader
from fastvlm_compile.errors import CheckpointMissingError
from fastvlm_compile.key import Ingredients, ToolVersions, differences, gather
from fastvlm_compile.latest import BuildRecord
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Damage, Entry
from fastvlm_compile.tree_digest import Tree


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A folder that a stage may read, and the digest of what it holds."""

    folder: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a build would do with one stage."""

    stage: str
    key: str | None
    """None while it waits for an input's digest."""
    entry: Entry | None
    """The entry that makes it a hit; None for a miss."""
    reasons: tuple[str, ...] = ()
    """Why it is a miss."""

    def __str__(self) -> str:
        return "hit" if self.entry is not None else f"miss: {'; '.join(self.reasons)}"


class Inspector:
    """Works out ingredients and reasons for one plan; reads each file of code once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tools = ToolVersions()
        self._code = CodeReader(packages=_packages(plan))

    def ingredients(self, stage: Stage, artifacts: Mapping[str, Artifact]) -> Ingredients:
        """What decides the stage's output, given the artifacts of all its inputs.

        Raises:
            ToolError: a tool of the stage is not installed.
        """
        digests = {role: artifacts[name].digest for role, name in stage.inputs.items()}
        return gather(stage, input_digests=digests, code=self._code, tools=self._tools)

    def reasons(
        self, stage: Stage, ingredients: Ingredients, record: BuildRecord
    ) -> tuple[str, ...]:
        """Why there is no entry for these ingredients."""
        before = record.stages.get(stage.name)
        if before is None:
            return ("never built",)
        changed = differences(
            before, ingredients, stage=stage, recipe_keys=self._plan.recipe_keys.get(stage.name, {})
        )
        return changed or ("its entry was removed from the store",)


def verdicts(plan: Plan, store: Store, record: BuildRecord) -> Iterator[Verdict]:
    """What a build of the plan would find, in order; nothing is written.

    Raises:
        CheckpointMissingError: a source cannot be read.
        ToolError: a stage's tool is not installed.
    """
    inspector = Inspector(plan)
    artifacts = {
        source.name: Artifact(folder=source.path, digest=read_source(source, store).digest)
        for source in plan.sources
    }
    for stage in plan.stages:
        waits_for = [name for name in stage.inputs.values() if name not in artifacts]
        if waits_for:
            reason = f"waits for {', '.join(dict.fromkeys(waits_for))}"
            yield Verdict(stage=stage.name, key=None, entry=None, reasons=(reason,))
            continue
        ingredients = inspector.ingredients(stage, artifacts)
        key = ingredients.key
        found = store.find(key)
        if isinstance(found, Entry):
            artifacts[stage.name] = Artifact(folder=found.output, digest=found.digest)
            yield Verdict(stage=stage.name, key=key, entry=found)
        else:
            reasons = inspector.reasons(stage, ingredients, record)
            if isinstance(found, Damage):
                reasons = (f"entry corrupt: {found.problem}",)
            if store.unfinished.holds(key):
                reasons = (*reasons, "some of its work is kept")
            yield Verdict(stage=stage.name, key=key, entry=None, reasons=reasons)


def read_source(source: Source, store: Store) -> Tree:
    """The files of a source and their digest.

    Raises:
        CheckpointMissingError: a file of it cannot be read.
    """
    try:
        return store.outside_tree(source.path, hidden=False)
    except OSError as error:
        raise CheckpointMissingError(
            f"{error.filename}: this file of the checkpoint cannot be read: {error.strerror}"
        ) from error


def _packages(plan: Plan) -> tuple[str, ...]:
    """The project's packages, and those of stages that come from elsewhere (tests)."""
    tops = (stage.function.partition(":")[0].partition(".")[0] for stage in plan.stages)
    return tuple(dict.fromkeys((*PROJECT, *tops)))
