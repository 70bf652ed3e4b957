"""Builds and publishes toy stages: in a test's own process, or as a script that can be killed.

python toy_build.py STORE OUT DIE_AT    exit by SIGKILL in the DIE_ATth durable step; 0: never
"""

import itertools
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from toy_stages import TextConfig

from fastvlm_compile.bundle.publish import published
from fastvlm_compile.console import LineReporter
from fastvlm_compile.durable import Disk, Step, no_step
from fastvlm_compile.publish import Publication, publish
from fastvlm_compile.runner import Finished, Workshop, run_stages
from fastvlm_compile.stage import Plan, Stage
from fastvlm_compile.store import Store


def toy_stage(
    function: str, config: object = None, *, name: str = "toy", inputs: Mapping[str, str] = {}
) -> Stage:
    """A stage of `toy_stages`."""
    return Stage(
        name=name,
        function=f"toy_stages:{function}",
        config=TextConfig() if config is None else config,
        inputs=inputs,
        tools=(),
    )


def toy_plan(*stages: Stage) -> Plan:
    """A plan without sources."""
    return Plan(recipe="toy", sources=(), stages=stages)


def run_toys(
    plan: Plan, root: Path, *, step: Step = no_step, stream: TextIO = sys.stderr
) -> Finished:
    """Runs a plan against the store at `root`."""
    store = Store(root=root, disk=Disk(step=step))
    store.open()
    with store.in_use():
        reporter = LineReporter(stream=stream)
        return run_stages(Workshop(plan=plan, store=store, reporter=reporter))


def two_stages() -> Plan:
    """One stage that reads the other's text."""
    first = toy_stage("write", TextConfig(text="hello"), name="first")
    second = toy_stage("join", name="second", inputs={"a": "first"})
    return toy_plan(first, second)


def build_and_publish(root: Path, out: Path, *, step: Step) -> None:
    """All durable steps of a build, from an empty disk to a published folder."""
    artifacts = run_toys(two_stages(), root, step=step).artifacts
    store = Store(root=root, disk=Disk(step=step))
    key = artifacts["second"].digest

    def put_in_place() -> None:
        with published(out, marker="manifest.json", disk=store.disk) as folder:
            (folder / "text").write_bytes((artifacts["second"].folder / "text").read_bytes())
            (folder / "manifest.json").write_text("{}")

    publish(Publication(recipe="toy", folder=out, key=key), put_in_place, store)


def killer(die_at: int) -> Step:
    """A `Step` that kills its process in the `die_at`th step."""
    steps = itertools.count(1)

    def step(what: str) -> None:
        if next(steps) == die_at:
            print(f"killed: {what}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    return step


if __name__ == "__main__":
    build_and_publish(Path(sys.argv[1]), Path(sys.argv[2]), step=killer(int(sys.argv[3])))
