"""A store at a URL: what is there is enough, what is damaged there is a miss."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toy_build import toy_plan, toy_stage
from toy_stages import FileConfig, TextConfig

from fastvlm_compile.console import LineReporter
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.distributed.mirror import Mirror
from fastvlm_compile.errors import StoreError, ToolError
from fastvlm_compile.runner import Finished, Workshop, run_stages
from fastvlm_compile.stage import Plan
from fastvlm_compile.store_entry import Damage, Entry


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/remote"


def _mirror(url: str, local: Path) -> Mirror:
    store = StoreLocation.parse(url).store(local)
    assert isinstance(store, Mirror)
    return store


def _run(plan: Plan, store: Mirror) -> Finished:
    store.open()
    with store.in_use():
        reporter = LineReporter(stream=sys.stderr)
        return run_stages(Workshop(plan=plan, store=store, reporter=reporter))


def _counting(tmp_path: Path) -> Plan:
    return toy_plan(toy_stage("count", FileConfig(path=str(tmp_path / "counter"))))


def _objects(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "remote" / "objects").rglob("*") if path.is_file()]


def test_what_one_machine_built_another_one_has(tmp_path: Path, url: str) -> None:
    plan = toy_plan(
        toy_stage("write", TextConfig(text="a"), name="first"),
        toy_stage("join", name="second", inputs={"x": "first"}),
    )
    here = _run(plan, _mirror(url, tmp_path / "here"))
    there = _run(plan, _mirror(url, tmp_path / "there"))
    assert {name: a.digest for name, a in there.artifacts.items()} == {
        name: a.digest for name, a in here.artifacts.items()
    }
    folder = there.artifacts["second"].folder
    assert folder.is_relative_to(tmp_path / "there")
    assert (folder / "text").read_text() == "a"
    assert (folder / "more" / ".hidden").read_text() == "also kept"


def test_the_second_machine_runs_nothing(tmp_path: Path, url: str) -> None:
    _run(_counting(tmp_path), _mirror(url, tmp_path / "here"))
    _run(_counting(tmp_path), _mirror(url, tmp_path / "there"))
    assert (tmp_path / "counter").read_text() == "x"


def test_builds_that_share_a_mirror_do_not_meet_while_they_bring_one_entry(
    tmp_path: Path, url: str
) -> None:
    here = _mirror(url, tmp_path / "here")
    _run(_counting(tmp_path), here)
    (key,) = here.entry_keys()
    there = _mirror(url, tmp_path / "there")
    there.open()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(there.look, [key] * 8))
    assert all(isinstance(entry, Entry) for entry in found)
    assert not any((there.root / "staging").iterdir())


def test_nothing_half_sent_is_left_under_a_name_that_counts(tmp_path: Path, url: str) -> None:
    _run(_counting(tmp_path), _mirror(url, tmp_path / "here"))
    names = [path.name for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert len(names) == 3  # store.json, the text, the manifest
    assert not any(name.startswith(".") for name in names)


@pytest.mark.parametrize("damage", ["changed", "cut off", "removed"])
def test_a_file_that_is_damaged_there_is_never_used_and_built_again(
    tmp_path: Path, url: str, damage: str
) -> None:
    _run(_counting(tmp_path), _mirror(url, tmp_path / "here"))
    (file,) = _objects(tmp_path)
    match damage:
        case "changed":
            file.write_text("COUNTED")
        case "cut off":
            file.write_text("cou")
        case "removed":
            file.unlink()
    finished = _run(_counting(tmp_path), _mirror(url, tmp_path / "there"))
    assert (finished.artifacts["toy"].folder / "text").read_text() == "counted"
    assert (tmp_path / "counter").read_text() == "xx"
    (file,) = _objects(tmp_path)
    assert file.read_text() == "counted"


def test_a_damaged_manifest_is_a_miss(tmp_path: Path, url: str) -> None:
    _run(_counting(tmp_path), _mirror(url, tmp_path / "here"))
    (manifest,) = (tmp_path / "remote" / "entries").iterdir()
    manifest.write_bytes(manifest.read_bytes().replace(b"count", b"mount"))
    store = _mirror(url, tmp_path / "there")
    found = store.look(manifest.stem)
    assert isinstance(found, Damage)
    assert found.problem == "its manifest is damaged: its body is not what was sealed"


def test_what_was_built_before_it_could_be_sent_is_sent_when_it_is_next_wanted(
    tmp_path: Path, url: str
) -> None:
    store = _mirror(url, tmp_path / "here")
    _run(_counting(tmp_path), store)
    (key,) = store.entry_keys()
    store.remote.drop_manifest(key)
    assert store.find(key) is None
    _run(_counting(tmp_path), _mirror(url, tmp_path / "here"))
    assert isinstance(store.find(key), Entry)
    assert (tmp_path / "counter").read_text() == "x"


def test_a_source_is_brought_whole_and_brought_again_when_it_was_changed(
    tmp_path: Path, url: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "config.json").write_text("{}")
    (outside / "sub" / "weights").write_text("1 2 3")
    here, there = _mirror(url, tmp_path / "here"), _mirror(url, tmp_path / "there")
    here.open()
    there.open()
    tree = here.outside_tree(outside, hidden=False)
    here.offer(outside, tree.files)
    folder = there.source(tree.files)
    assert folder == tmp_path / "there" / "sources" / tree.digest
    (folder / "sub" / "weights").write_text("1 2 4")
    assert (there.source(tree.files) / "sub" / "weights").read_text() == "1 2 3"
    assert not any((there.root / "staging").iterdir())


def test_a_source_that_is_damaged_there_is_told(tmp_path: Path, url: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    here, there = _mirror(url, tmp_path / "here"), _mirror(url, tmp_path / "there")
    here.open()
    there.open()
    tree = here.outside_tree(outside, hidden=False)
    here.offer(outside, tree.files)
    (file,) = _objects(tmp_path)
    file.write_text("[]")
    with pytest.raises(StoreError, match=r"the checkpoint is damaged there: config\.json was"):
        there.source(tree.files)
    here.offer(outside, tree.files)
    assert (there.source(tree.files) / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x", "nonsense://x: fsspec knows no protocol nonsense"),
        ("memory://x", "memory://x: this is the memory of one process"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x: this can only be read"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_told(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(StoreError) as caught:
        _mirror(url, tmp_path / "here")
    assert caught.value.message.startswith(words)
    assert caught.value.hint


def test_a_protocol_whose_library_is_missing_says_which(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(ToolError, match="hdfs://host/x: "):
        _mirror("hdfs://host/x", tmp_path / "here")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("a file in the way")
    store = _mirror(f"file://{tmp_path}/remote", tmp_path / "here")
    with pytest.raises(StoreError, match="the store cannot be used"):
        store.open()


def test_something_else_that_is_kept_there_is_left_alone(tmp_path: Path, url: str) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "store.json").write_text('{"schema": 99}')
    with pytest.raises(StoreError, match="another format"):
        _mirror(url, tmp_path / "here").open()


def test_a_password_in_a_url_is_not_told() -> None:
    location = StoreLocation.parse("sftp://someone:secret@host/store")
    assert location.shown == "sftp://someone:***@host/store"
    assert StoreLocation.parse("s3://bucket/store").shown == "s3://bucket/store"
