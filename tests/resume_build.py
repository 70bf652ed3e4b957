"""Builds of one real or toy stage that are killed and go on, each in a process of its own."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import resume_stages

from fastvlm_compile.progress import silent
from fastvlm_compile.stage import Plan, Source, Stage
from fastvlm_compile.store import Store
from fastvlm_compile.tree_digest import FileRecord, StatMemo, read_tree

StageFunction = Callable[..., None]

_SIGKILLED = -9


def stage_of(function: str, config: object, sources: Mapping[str, Path]) -> Plan:
    """One stage of `resume_stages`, which reads from folders."""
    stage = Stage(
        name="only",
        function=f"resume_stages:{function}",
        config=config,
        inputs={role: role for role in sources},
        tools=(),
        resumable=True,
    )
    found = tuple(Source(name=name, path=path) for name, path in sources.items())
    return Plan(recipe="resume", sources=found, stages=(stage,))


class Builds:
    """Builds of one plan in a folder, each a process of its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.store = Store(root=folder / "store")

    def run(self, die_after: int | None = None, store: str = "store") -> list[str]:
        """What was told of pieces; the build must end as it is asked to."""
        (self.folder / "plan").write_bytes(pickle.dumps(self.plan))
        told = self.folder / "told"
        told.unlink(missing_ok=True)
        environment = {**os.environ, "TOLD": str(told)}
        if die_after is not None:
            environment["DIE_AFTER"] = str(die_after)
        command = [sys.executable, resume_stages.__file__, store, "plan"]
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == (0 if die_after is None else _SIGKILLED), ended.stderr
        self.said = ended.stderr
        return told.read_text().splitlines() if told.exists() else []

    def kept(self) -> dict[str, int]:
        """Inode of every kept file by its path."""
        (folder,) = (self.folder / "store" / "kept").iterdir()
        return {
            path.relative_to(folder).as_posix(): path.stat().st_ino
            for path in folder.rglob("*")
            if path.is_file()
        }

    def output(self, store: str = "store") -> Path:
        """The folder of the only entry."""
        (entry,) = (self.folder / store / "entries").iterdir()
        return entry / "output"


def files_of(folder: Path) -> tuple[FileRecord, ...]:
    return read_tree(folder, StatMemo(), hidden=True).files


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def check_resumed(build: Builds, die_after: int, stage: StageFunction) -> list[str]:
    """Kill, go on, compare with what the stage makes undisturbed; what was told the second time.

    Nothing is made twice: all that was told once comes before the kill or after it.
    """
    killed = build.run(die_after)
    assert len(killed) == die_after
    assert not any((build.folder / "store" / "entries").iterdir())
    (of_pieces,) = (build.folder / "store" / "kept").iterdir()
    before = {path.stat().st_ino for path in linked(of_pieces)}
    resumed = build.run()
    assert resumed, "the kill must come in the middle"
    assert build.said.rstrip().endswith(", resumed"), build.said
    assert not any((build.folder / "store" / "kept").iterdir())
    assert before <= inodes(build.output())
    undisturbed = build.folder / "undisturbed"
    undisturbed.mkdir()
    sources = {source.name: source.path for source in build.plan.sources}
    stage(build.plan.stages[0].config, sources, undisturbed, silent)
    assert files_of(build.output()) == files_of(undisturbed)
    return [*killed, *resumed]


def linked(folder: Path) -> list[Path]:
    """Files of pieces that become a part of the output."""
    names = [*folder.glob("*.mlpackage/content/**/*"), *folder.glob(".work/*.safetensors")]
    return [path for path in names if path.is_file()]
