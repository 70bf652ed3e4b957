"""A build that is killed at any durable step loses nothing that was finished and breaks nothing."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy_build

from fastvlm_compile.durable import no_step
from fastvlm_compile.tree_digest import StatMemo, read_tree

_SIGKILLED = -9


def _build_dying_at(step: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, toy_build.__file__, "store", "dist/toy", str(step)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _digests(folder: Path) -> dict[str, str]:
    """Digest of every entry by key, as the manifests tell it and as the files are."""
    digests = {}
    for entry in sorted((folder / "store" / "entries").glob("[!.]*")):
        tree = read_tree(entry / "output", StatMemo(), hidden=True)
        told = json.loads((entry / "manifest.json").read_bytes())["body"]["files"]
        assert [file.path for file in tree.files] == [file["path"] for file in told]
        digests[entry.name] = tree.digest
    return digests


def _check_published(out: Path) -> None:
    assert (out / "text").read_text() == "hello"
    assert (out / "manifest.json").read_text() == "{}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a build that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    toy_build.build_and_publish(folder / "store", folder / "dist" / "toy", step=no_step)
    return _digests(folder)


def test_builds_killed_one_after_another_in_one_folder_get_there_in_the_end(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    for step in itertools.count(1):
        outcome = _build_dying_at(step, tmp_path)
        if (tmp_path / "dist" / "toy").exists():
            _check_published(tmp_path / "dist" / "toy")
        if outcome.returncode == 0:
            break
        assert outcome.returncode == _SIGKILLED, outcome.stderr
    assert _digests(tmp_path) == undisturbed
    _check_published(tmp_path / "dist" / "toy")


def test_after_a_kill_at_any_step_the_next_build_gives_the_same_digests(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    for step in itertools.count(1):
        folder = tmp_path / str(step)
        folder.mkdir()
        killed = _build_dying_at(step, folder)
        if killed.returncode == 0:
            assert step > 20, "the build has far more durable steps than this"
            break
        assert killed.returncode == _SIGKILLED, killed.stderr
        if (folder / "dist" / "toy").exists():
            _check_published(folder / "dist" / "toy")
        toy_build.build_and_publish(folder / "store", folder / "dist" / "toy", step=no_step)
        assert _digests(folder) == undisturbed, killed.stdout
        _check_published(folder / "dist" / "toy")
        assert not any((folder / "store" / "staging").iterdir()), killed.stdout
        assert [path.name for path in (folder / "dist").iterdir()] == ["toy"], killed.stdout
