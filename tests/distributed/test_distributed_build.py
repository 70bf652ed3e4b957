"""`build --scheduler`: the same digests and the same bytes as a local build."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dask_processes import Scheduler
from small_recipe import small_recipe

from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Entry
from fastvlm_compile.tree_digest import StatMemo, read_tree

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("dask")]

_PATIENCE_S = 60
# A shell starts background jobs with the interrupt ignored; a terminal does not.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fastvlm_compile.cli import run
sys.exit(run(sys.argv[1:]))
"""
RECIPE = small_recipe(
    """\
targets:
  mlx: {variants: [fp16]}
  torch: {}
gates:
  - target: mlx
    variant: fp16
    component: vision_encoder
    metric: relative_l2
    max: 1.0e-4
    why: float32 arithmetic on the same numbers
""",
    name="NAME",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path) -> Path:
    """Two recipes of one checkpoint; no measurement meets the gate of `hard`."""
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(random_checkpoint, folder / "checkpoint")
    (folder / "small.yaml").write_text(RECIPE.replace("NAME", "small"))
    (folder / "hard.yaml").write_text(RECIPE.replace("NAME", "hard").replace("1.0e-4", "1.0e-30"))
    return folder


def _build(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastvlm_compile", "build", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def local(folder: Path) -> tuple[dict[str, str], str]:
    """What a build on this machine alone makes: its entries' digests by key, and its bundle's."""
    done = _build(folder, "small.yaml", "--store", "local", "--out", "dist/local")
    assert done.returncode == 0, done.stderr
    return _entries(folder / "local"), _digest(folder / "dist/local")


def _entries(root: Path) -> dict[str, str]:
    store = Store(root=root)
    found = {key: store.look(key, trust_memo=False) for key in store.entry_keys()}
    assert found
    return {key: entry.digest for key, entry in found.items() if isinstance(entry, Entry)}


def _digest(folder: Path) -> str:
    return read_tree(folder, StatMemo(), hidden=True).digest


def _workers_in(stderr: str) -> set[str]:
    return {line.rpartition(", on ")[2] for line in stderr.splitlines() if ", on tcp://" in line}


def test_two_workers_make_the_same_entries_and_the_same_bundle_as_one_machine(
    folder: Path, cluster: Scheduler, local: tuple[dict[str, str], str]
) -> None:
    shared = ("small.yaml", "--scheduler", cluster.address, "--store", "shared")
    done = _build(folder, *shared, "--out", "dist/shared")
    assert done.returncode == 0, done.stderr
    assert len(_workers_in(done.stderr)) == 2, done.stderr
    assert (_entries(folder / "shared"), _digest(folder / "dist/shared")) == local
    again = _build(folder, *shared, "--out", "dist/shared")
    assert {line.split()[1] for line in again.stderr.splitlines() if "  " in line} == {"hit"}
    assert again.stderr.endswith("bundle: up to date\n")


def test_a_store_at_a_url_is_shared_as_well_and_so_is_the_checkpoint(
    folder: Path, cluster: Scheduler, local: tuple[dict[str, str], str]
) -> None:
    url = f"file://{folder}/remote"
    done = _build(
        folder,
        "small.yaml",
        *("--scheduler", cluster.address, "--store", url, "--local-store", "copies"),
        *("--out", "dist/remote"),
    )
    assert done.returncode == 0, done.stderr
    assert (_entries(folder / "copies"), _digest(folder / "dist/remote")) == local
    (of_workers,) = cluster.folder.glob("*/fastvlm-store-*")
    assert _entries(of_workers).items() <= local[0].items()
    (source,) = (of_workers / "sources").iterdir()
    assert source.name == _digest(folder / "checkpoint")
    # What is at the URL is enough for a machine that has never seen any of it.
    alone = _build(
        folder, "small.yaml", "--store", url, "--local-store", "fresh", "--out", "dist/fresh"
    )
    assert {line.split()[1] for line in alone.stderr.splitlines() if "  " in line} == {"hit"}
    assert (_entries(folder / "fresh"), _digest(folder / "dist/fresh")) == local


def test_a_failing_gate_fails_its_recipe_and_no_other_and_all_are_told_in_one_view(
    folder: Path, cluster: Scheduler
) -> None:
    both = ("hard.yaml", "small.yaml", "--scheduler", cluster.address, "--store", "both")
    done = _build(folder, *both, "--json")
    assert done.returncode == 1, done.stderr
    hard, small = json.loads(done.stdout)
    assert (hard["recipe"], hard["ending"]) == ("hard", "failed")
    assert (small["recipe"], small["ending"]) == ("small", "published")
    assert (folder / "dist/small/manifest.json").is_file()
    assert not (folder / "dist/hard").exists()
    lines = done.stderr.splitlines()
    for recipe in ("hard ", "small"):
        assert any(line.startswith(f"{recipe}  golden ") for line in lines), done.stderr
    assert any(line.startswith("error: hard: 1 of ") for line in lines)
    assert any(line.startswith("hard   bundle ") and "failed: 1 of " in line for line in lines)
    assert any(line.split() == ["small", "bundle", "published"] for line in lines)
    assert lines[-1] == "error: 1 of 2 recipes failed: hard"


def test_ctrl_c_ends_with_130_and_stops_what_the_workers_run(
    folder: Path, cluster: Scheduler
) -> None:
    command = [sys.executable, "-c", INTERRUPTIBLE, "build", "small.yaml"]
    command += ["--scheduler", cluster.address, "--store", "interrupted", "--out", "dist/never"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        told = build.stderr.readline()
        assert told.startswith("checkpoint "), told + build.stderr.read()
        staging = folder / "interrupted" / "staging"
        _wait_until(lambda: any(staging.iterdir()))  # the next stages run
        build.send_signal(signal.SIGINT)
        rest = build.stderr.read()
    assert build.returncode == 130, rest
    assert rest.endswith("error: interrupted\n")
    _wait_until(lambda: not any(staging.iterdir()))
    assert not (folder / "dist/never").exists()


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
