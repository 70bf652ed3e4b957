"""`store ls`, `gc` and `verify`: nothing that is used goes, nothing that is damaged hides."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from toy_build import run_toys, toy_stage
from toy_stages import TextConfig

from fastvlm_compile.commands.store import store as store_command
from fastvlm_compile.errors import StoreError, VerificationError
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store

Command = Callable[..., Result]


def _plan(text: str, recipe: str = "toy") -> Plan:
    stage = toy_stage("write", TextConfig(text=text), name="only")
    return Plan(recipe=recipe, sources=(), stages=(stage,))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one entry that is used and one that is not; not to be changed."""
    root = tmp_path_factory.mktemp("care") / "store"
    run_toys(_plan("old"), root)
    run_toys(_plan("new"), root)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(built, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def command(root: Path) -> Command:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(store_command, [*arguments, "--store", str(root)])

    return run


def _texts(root: Path) -> set[str]:
    return {path.read_text() for path in (root / "entries").glob("*/output/text")}


def test_ls_shows_stage_size_and_users(command: Command) -> None:
    rows = json.loads(command("ls", "--json").stdout)
    assert [row["stage"] for row in rows] == ["only", "only"]
    assert sorted(row["recipes"] for row in rows) == [[], ["toy"]]
    assert {row["size_bytes"] for row in rows} == {3}
    assert "2 entries, 6 B" in command("ls").stderr


def test_gc_keeps_what_the_latest_build_of_any_recipe_stands_on(
    command: Command, root: Path
) -> None:
    run_toys(_plan("other", recipe="second"), root)
    outcome = command("gc")
    assert outcome.exit_code == 0
    assert "1 entries were removed, 3 B" in outcome.stderr
    assert _texts(root) == {"new", "other"}


def test_gc_removes_logs_locks_and_memos_of_what_is_gone(command: Command, root: Path) -> None:
    gone = next(p for p in (root / "entries").glob("*/output/text") if p.read_text() == "old")
    key = gone.parent.parent.name
    (root / "stat" / f"{key}.json").write_text("{}")
    (root / "latest" / ".new-1").write_text("half")
    command("gc")
    assert not [path for path in root.rglob("*") if key[:12] in path.name]
    assert not (root / "latest" / ".new-1").exists()


def test_gc_dry_run_and_keep_days_remove_nothing(command: Command, root: Path) -> None:
    assert "1 entries would be removed" in command("gc", "--dry-run").stderr
    assert "0 entries were removed" in command("gc", "--keep-days", "1").stderr
    assert _texts(root) == {"old", "new"}


def test_gc_waits_for_no_build_but_refuses_while_one_runs(command: Command, root: Path) -> None:
    with Store(root=root).in_use():
        outcome = command("gc")
    assert isinstance(outcome.exception, StoreError)
    assert "a build is using this store" in str(outcome.exception)
    assert _texts(root) == {"old", "new"}


def test_gc_drops_nothing_when_it_cannot_know_what_is_used(command: Command, root: Path) -> None:
    (root / "latest" / "toy.json").write_text("{")
    assert isinstance(command("gc").exception, StoreError)
    assert _texts(root) == {"old", "new"}


def test_verify_reads_every_byte_whatever_the_file_system_says(
    command: Command, root: Path
) -> None:
    assert command("verify").exit_code == 0
    for path in (root / "entries").glob("*/output/text"):
        path.write_text(path.read_text()[::-1])
        break
    outcome = command("verify")
    assert isinstance(outcome.exception, VerificationError)
    assert outcome.exception.exit_code == 1
    assert "text was changed" in outcome.stdout


def test_where_there_is_no_store_that_is_said_and_none_is_made(tmp_path: Path) -> None:
    for action in ("ls", "gc", "verify"):
        outcome = CliRunner().invoke(store_command, [action, "--store", str(tmp_path / "none")])
        assert isinstance(outcome.exception, StoreError), action
    assert not any(tmp_path.iterdir())
