"""Between them the two bundles agree with every consumer that runs on Linux."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from consumer_folders import BUNDLES, linked

from fastvlm_compile.bundle.manifest import read_manifest
from validation.consumers.outcome import Environment, Outcome
from validation.consumers.registry import CONSUMERS

pytestmark = pytest.mark.consumers


@pytest.fixture(scope="module")
def matrices(
    bundles: Path, environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Outcome, ...]]:
    """What `fastvlm-compile consumers` writes into a copy of each bundle."""
    found = {}
    for name in BUNDLES:
        copy = linked(bundles / name, tmp_path_factory.mktemp("matrix") / name)
        command = ["consumers", copy, "--environments", environment.root, "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "fastvlm_compile", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        rows = tuple(Outcome(**row) for row in json.loads(done.stdout))
        assert read_manifest(copy).consumers == rows
        found[name] = rows
    return found


@pytest.mark.parametrize("consumer", [each.name for each in CONSUMERS])
def test_a_consumer_agrees_with_at_least_one_bundle(
    consumer: str, matrices: dict[str, tuple[Outcome, ...]]
) -> None:
    rows = [row for outcomes in matrices.values() for row in outcomes if row.consumer == consumer]
    told = "\n".join(f"{row.variant}: {row.status}: {row.detail}" for row in rows)
    assert any(row.status == "agreed" for row in rows), told
    assert not any("consumers-env" in row.detail for row in rows), told
