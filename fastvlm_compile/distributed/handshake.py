"""What every worker must show before it is given anything: our code, our tools, our store."""

import contextlib
import importlib.metadata
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from fastvlm_compile import locks
from fastvlm_compile.code_digest import PROJECT, CodeReader
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.task import local_store, other_code
from fastvlm_compile.durable import ASIDE, refusals
from fastvlm_compile.errors import ClusterError, StoreError
from fastvlm_compile.key import shortened
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from reference.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, Worker

_MISSING = "none"
_TASK = "fastvlm_compile.distributed.task"


class Question(TypedDict):
    """What a worker is asked; plain values, for it may have other code than we."""

    store: str
    token: str
    modules: list[str]
    packages: list[str]
    tools: list[str]


class Answer(TypedDict):
    """What it says."""

    code: dict[str, str]
    versions: dict[str, str]
    store_problem: str
    folders: list[str]


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a set of plans needs of a machine."""

    modules: tuple[str, ...]
    packages: tuple[str, ...]
    tools: tuple[str, ...]

    @classmethod
    def of(cls, plans: Iterable[Plan]) -> "Requirements":
        """The stages' modules and tools, and the code that runs them."""
        stages = [stage for plan in plans for stage in plan.stages]
        modules = [stage.function.partition(":")[0] for stage in stages]
        tops = [module.partition(".")[0] for module in modules]
        return cls(
            modules=tuple(dict.fromkeys((_TASK, *modules))),
            packages=tuple(dict.fromkeys((*PROJECT, *tops))),
            tools=tuple(dict.fromkeys(tool for stage in stages for tool in stage.tools)),
        )


def greet(
    client: "Client", requirements: Requirements, store: Store, location: StoreLocation
) -> tuple[Path, ...]:
    """Ask all workers that are connected.

    Args:
        client: of the scheduler.
        requirements: of all recipes.
        store: open.
        location: where it is.

    Returns:
        Folders of the workers' machines, which no bundle may name.

    Raises:
        ClusterError: a worker has not our code, our tools or our store; it is named.
    """
    token = f"{ASIDE}{uuid.uuid4().hex}"
    with _token_left(store, token):
        question = Question(
            store=location.address,
            token=token,
            modules=list(requirements.modules),
            packages=list(requirements.packages),
            tools=list(requirements.tools),
        )
        answers = client.run(examine, dict(question), on_error="return")
    code, versions = (
        _code(requirements.modules, requirements.packages),
        _versions(question["tools"]),
    )
    folders: set[Path] = set()
    for worker, answer in sorted(answers.items()):
        if not isinstance(answer, dict):
            raise other_code(worker, f"it cannot answer: {type(answer).__name__}: {answer}")
        _compare(worker, "code of", code, answer["code"])
        _compare(worker, "tool", versions, answer["versions"])
        if answer["store_problem"]:
            raise ClusterError(
                f"the worker {worker} cannot use the store {location.shown}: "
                f"{answer['store_problem']}",
                hint="`--store` must be a folder that all machines share, at the same path, or a "
                "URL that all can write to",
            )
        folders |= {Path(folder) for folder in answer["folders"]}
    return tuple(sorted(folders))


def examine(question: Question, dask_worker: "Worker") -> Answer:
    """Answer for one worker; runs there."""
    location = StoreLocation(address=question["store"])
    local = local_store(dask_worker, location)
    return Answer(
        code=_code(question["modules"], question["packages"]),
        versions=_versions(question["tools"]),
        store_problem=_store_problem(location, local, question["token"]),
        folders=[str(Path.cwd()), str(Path.home()), str(local)],
    )


def _store_problem(location: StoreLocation, local: Path, token: str) -> str:
    """What keeps this machine from sharing the store with the build; empty for nothing."""
    from fastvlm_compile.distributed.mirror import Mirror

    elsewhere = "what this build wrote there is not there for it"
    try:
        store = location.store(local)
        if isinstance(store, Mirror):
            return "" if store.remote.has(token) else elsewhere
    except UserError as error:
        return error.message
    path = store.root / token
    if not path.is_file():
        return elsewhere
    with locks.exclusive_if_free(path) as free:
        return "its file system does not pass locks (flock) on between machines" if free else ""


@contextlib.contextmanager
def _token_left(store: Store, token: str) -> Iterator[None]:
    """Leave a file in the store; in a folder it is locked."""
    from fastvlm_compile.distributed.mirror import Mirror

    if isinstance(store, Mirror):
        store.remote.leave(token)
        try:
            yield
        finally:
            store.remote.remove(token)
        return
    path = store.root / token
    with contextlib.ExitStack() as stack:
        with refusals(StoreError, store.root):
            stack.enter_context(locks.exclusive(path, note="greeting workers"))
        try:
            yield
        finally:
            path.unlink()


def _code(modules: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    reader = CodeReader(packages=tuple(packages))
    digests: dict[str, str] = {}
    for module in modules:
        try:
            digests |= reader.digests(module)
        except ModuleNotFoundError:
            digests[module] = _MISSING
    return digests


def _versions(tools: Iterable[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in tools:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            versions[tool] = _MISSING
    return versions


def _compare(worker: str, what: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    other = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if not other:
        return
    if what == "tool":
        told = [f"{name} {theirs.get(name, _MISSING)} (here {ours.get(name)})" for name in other]
    else:
        told = other
    raise other_code(worker, f"{what} {shortened(told)} differs")
